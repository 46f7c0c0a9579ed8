"""What ssh clients send before there are keys: the version line, packets, and their KEXINIT."""

from collections.abc import Sequence

from fuzz.target import pieces
from netd.ssh.ciphers import Clear
from netd.ssh.negotiation import KEY_EXCHANGES, NoAgreement, agree
from netd.ssh.packets import PacketReader
from netd.ssh.wire import Malformed

LONGEST = 1024
WORDS = (
    *(
        b"SSH-2.0-x\r\n",
        b"SSH-1.99-",
        b"\n",
        b"\0\0\0\x0c\x0a\x15",
        b"\0\0\0\x1c\x04\x14",
        b"\0\0\0\x08none",
        b"\0\0\0\x04none",
    ),
    *(b"curve25519-sha256", b"ssh-ed25519", b"aes128-ctr", b"aes256-gcm@openssh.com", b"hmac-sha2-256-etm@openssh.com"),
    *(b"kex-strict-c-v00@openssh.com", b"ext-info-c", b",", b"\0\0\0\0", b"\xff\xff\xff\xff"),
)
HOST_KEYS = [b"ssh-ed25519"]


def check(data: bytes) -> None:
    """Packets and an agreement, the same however the bytes are cut, or one of the three errors."""
    whole = _read([data])
    assert _read(pieces(data)) == whole
    for payload in [data, *(each for each in whole if isinstance(each, bytes))]:
        try:
            agreed = agree(payload, HOST_KEYS)
        except (Malformed, NoAgreement):
            continue
        assert agreed.key_exchange in KEY_EXCHANGES
        assert agreed.host_key in HOST_KEYS


def _read(parts: Sequence[bytes]) -> list[bytes | str]:
    reader = PacketReader(Clear())
    found: list[bytes | str] = []
    try:
        for part in parts:
            reader.feed(part)
            if not found and (line := reader.version()) is not None:
                found.append(line)
            while found and (payload := reader.next()) is not None:
                assert payload
                found.append(payload)
    except Malformed:
        found.append("malformed")
    return found

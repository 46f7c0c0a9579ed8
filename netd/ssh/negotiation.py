"""What both sides agree on in KEXINIT (RFC 4253, section 7.1), with nothing weak to agree on."""

from collections.abc import Sequence
from dataclasses import dataclass

from netd.ssh.ciphers import AEAD, CHACHA, CTR_KEYS, GCM_KEYS, MACS
from netd.ssh.wire import Malformed, Reader

KEY_EXCHANGES = (b"mlkem768x25519-sha256", b"curve25519-sha256", b"curve25519-sha256@libssh.org")
CIPHERS = (*GCM_KEYS, CHACHA, *CTR_KEYS)
STRICT_CLIENT, STRICT_SERVER = b"kex-strict-c-v00@openssh.com", b"kex-strict-s-v00@openssh.com"
"""OpenSSH's PROTOCOL, section 1.10: sequence numbers begin anew with new keys, and nothing may slip in before them."""
EXTENSIONS_CLIENT, EXTENSIONS_SERVER = b"ext-info-c", b"ext-info-s"

LONGEST_OFFER = 16 << 10
"""Bytes of a KEXINIT; OpenSSH's has 1,500. A server keeps it as long as the connection lives."""


class NoAgreement(Exception):
    """The client offers nothing that is good enough; the text says of what."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """One name of each kind."""

    key_exchange: bytes
    host_key: bytes
    cipher_in: bytes
    cipher_out: bytes
    mac_in: bytes
    mac_out: bytes
    strict: bool
    """The client knows strict key exchange."""
    extensions: bool
    """The client wants to be told of extensions (RFC 8308)."""
    wrong_guess: bool
    """The client has sent a first packet for something else, which is to be ignored."""


def agree(offer: bytes, host_keys: Sequence[bytes]) -> Agreement:
    """The client's KEXINIT, without its number, against what netd offers; raises NoAgreement or Malformed."""
    if len(offer) > LONGEST_OFFER:
        raise Malformed("an endless KEXINIT")
    reader = Reader(offer)
    reader.take(16)
    exchanges, keys, ciphers_in, ciphers_out, macs_in, macs_out, packers_in, packers_out, _, _ = (
        reader.names() for _ in range(10)
    )
    guessed = reader.boolean()
    reader.uint32()
    reader.end()
    exchange = _first("key exchange", exchanges, KEY_EXCHANGES)
    key = _first("host key", keys, host_keys)
    cipher_in = _first("cipher", ciphers_in, CIPHERS)
    cipher_out = _first("cipher", ciphers_out, CIPHERS)
    for packers in (packers_in, packers_out):
        _first("compression", packers, (b"none",))
    return Agreement(
        exchange,
        key,
        cipher_in,
        cipher_out,
        b"none" if cipher_in in AEAD else _first("MAC", macs_in, tuple(MACS)),
        b"none" if cipher_out in AEAD else _first("MAC", macs_out, tuple(MACS)),
        STRICT_CLIENT in exchanges,
        EXTENSIONS_CLIENT in exchanges,
        guessed and (exchanges[0] != KEY_EXCHANGES[0] or keys[0] != host_keys[0]),
    )


def _first(kind: str, wanted: Sequence[bytes], offered: Sequence[bytes]) -> bytes:
    for name in wanted:
        if name in offered:
            return name
    raise NoAgreement(f"no common {kind}")

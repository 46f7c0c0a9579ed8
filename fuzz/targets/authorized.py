"""Files of keys that may log in."""

from datetime import UTC, datetime

from netd.ssh.authorized import ALGORITHMS, LONGEST_FILE, parse_file

KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAOhB7/zzhC+HXDdGOdLwJln5NYwm6UNXx3chmQSVTG4"
LONGEST = 700
WORDS = (
    *(KEY, b"\n", b"#", b" ", b"ssh-ed25519 ", b"ssh-rsa ", b"ecdsa-sha2-nistp256 ", b"AAAAC3NzaC1lZDI1NTE5AAAAI"),
    *(b'from="', b'command="', b'expiry-time="', b'"', b'\\"', b",", b"restrict,", b"pty ", b"no-pty", b"10.0.0.0/8"),
    *(
        b"!*",
        b"?",
        b"::1/64",
        b"20261231",
        b"00010101",
        b"99991231235959",
        b"Z",
        b"verify-required",
        b"no-touch-required",
    ),
)


def check(data: bytes) -> None:
    """Keys and complaints, nothing else; a key that was read can be asked where and how long it holds."""
    keys, complaints = parse_file(data[:LONGEST_FILE])
    assert len(keys) + len(complaints) <= data.count(b"\n") + 1
    for complaint in complaints:
        assert complaint.startswith("line ")
    for key in keys:
        assert key.kind in ALGORITHMS
        assert key.fingerprint.startswith("SHA256:")
        for host in ("192.0.2.1", "2001:db8::1", ""):
            key.allows(host, datetime(2026, 11, 25, tzinfo=UTC))

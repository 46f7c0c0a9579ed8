"""Which lines of an authorized_keys file let whom in."""

import base64
import os
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st
from twisted.conch.ssh.keys import Key

from netd.ssh.auth import is_proof
from netd.ssh.authorized import AuthorizedKey, BadLine, parse_file, parse_line
from tests.ssh.raw import USER_BLOB, keys_that_conch_reads
from tests.ssh.service import AUTHORIZED, Served

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def public_line(key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    encoded = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return encoded.decode()


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
        *(ec.generate_private_key(curve) for curve in (ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1())),
    ],
)
def test_keys_that_ssh_keygen_makes_are_read(
    key: ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey,
) -> None:
    line = public_line(key)
    parsed = parse_line(f"{line} me@home with words")
    assert base64.b64encode(parsed.blob).decode() == line.split()[1]


def test_the_fingerprint_is_ssh_keygens(tmp_path: Path) -> None:
    path = tmp_path / "key.pub"
    path.write_text(AUTHORIZED)
    told = subprocess.run(["ssh-keygen", "-lf", path], capture_output=True, text=True, check=True).stdout
    assert told.split()[1] == parse_line(AUTHORIZED).fingerprint


def test_short_rsa_keys_are_refused() -> None:
    with pytest.raises(BadLine, match="less than 2048 bits are not accepted; this one has 1024"):
        parse_line(public_line(rsa.generate_private_key(65537, 1024)))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("ssh-dss AAAA", "no key of a kind that is accepted"),
        ("ssh-ed25519 AAAA", "cut off"),
        ("ssh-ed25519 !!!", "not base64"),
        (AUTHORIZED.replace("ssh-ed25519", "ssh-rsa", 1), "not of the kind"),
        ("cert-authority " + AUTHORIZED, "cert-authority is not understood"),
        ('environment="A=b" ' + AUTHORIZED, "environment is not understood"),
        ('from="db.example.org" ' + AUTHORIZED, "looks up no names"),
        ('from="10.0.0.0/33" ' + AUTHORIZED, "not an address or a network"),
        ('expiry-time="tomorrow" ' + AUTHORIZED, "YYYYMMDD"),
        ('expiry-time="20261332" ' + AUTHORIZED, "YYYYMMDD"),
        ('command="unfinished ' + AUTHORIZED, "neither a key nor options"),
        ("nonsense", "no key of a kind"),
        ("restrict,", "neither a key nor options"),
    ],
)
def test_what_is_not_understood_lets_nobody_in(line: str, complaint: str) -> None:
    with pytest.raises(BadLine, match=complaint):
        parse_line(line)


def test_a_file_may_have_comments_blank_lines_and_mistakes() -> None:
    keys, complaints = parse_file(f"# mine\n\n{AUTHORIZED}\nnonsense\n".encode() + b"\xff\xfe x\n")
    assert [key.blob for key in keys] == [USER_BLOB]
    assert [complaint.split(":")[0] for complaint in complaints] == ["line 4", "line 5"]


@given(st.binary(max_size=300))
def test_no_file_whatever_is_in_it_raises(raw: bytes) -> None:
    keys, complaints = parse_file(b'restrict,from="' + raw)
    assert not keys
    assert complaints


@given(st.text(max_size=80))
def test_no_options_whatever_they_say_raise_anything_else(text: str) -> None:
    try:
        key = parse_line(f"{text} {AUTHORIZED}")
    except BadLine:
        return
    assert key.blob == USER_BLOB


def options(text: str) -> AuthorizedKey:
    return parse_line(f"{text} {AUTHORIZED}")


@pytest.mark.parametrize(
    ("sources", "host", "allowed"),
    [
        ("10.0.0.0/8", "10.9.9.9", True),
        ("10.0.0.0/8", "11.0.0.1", False),
        ("10.0.0.0/8,!10.0.0.5", "10.0.0.5", False),
        ("192.0.2.*", "192.0.2.77", True),
        ("192.0.2.?", "192.0.2.77", False),
        ("2001:db8::/32", "2001:db8::1", True),
        ("!10.0.0.1", "10.0.0.2", False),
        ("10.0.0.1", "", False),
        ("*,!2001:DB8::1", "2001:db8::1", False),
        ("*,!2001:db8:0:0:0:0:0:1", "2001:db8::1", False),
        ("*,!::ffff:10.0.0.1", "10.0.0.1", False),
        ("2001:DB8:*", "2001:db8::1", True),
    ],
)
def test_from_says_where_a_key_may_be_used(sources: str, host: str, *, allowed: bool) -> None:
    assert options(f'from="{sources}"').allows(host, NOW) is allowed


def test_expiry_time_says_how_long() -> None:
    key = options('expiry-time="202611231300Z"')
    assert key.allows("10.0.0.1", NOW)
    assert not key.allows("10.0.0.1", NOW + timedelta(hours=1))
    assert options('expiry-time="20261123120001Z"').allows("", NOW)
    assert not options('expiry-time="20261122"').allows("", NOW)


@pytest.mark.parametrize("zone", ["EST5", "JST-9", "UTC0"])
def test_a_time_that_the_time_zone_moves_out_of_the_calendar_lets_nobody_in(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("TZ", zone)
        time.tzset()
        for moment in ("00010101", "99991231235959"):
            keys, complaints = parse_file(f'expiry-time="{moment}" {AUTHORIZED}'.encode())
            assert len(keys) + len(complaints) == 1
            assert all("YYYYMMDD" in complaint for complaint in complaints)
    time.tzset()


def test_options_are_read_with_their_quotes() -> None:
    key = options('restrict,pty,command="say \\"a, b\\"",no-X11-forwarding')
    assert (key.forced, key.pty) == ('say "a, b"', True)
    assert not options("restrict").pty
    assert not options("no-pty").pty


# --- as a client meets them

Serve = Callable[..., Served]


def tries(served: Served, host: str = "127.0.0.1") -> list[int]:
    client = served.connect(host).handshake()
    return [number for number, _ in client.say(50, client.key_request())]


def test_a_key_is_accepted_from_where_it_may_be_used(serve: Serve) -> None:
    served = serve(authorized='from="10.0.0.0/8" ' + AUTHORIZED)
    assert tries(served, "10.0.0.1") == [52]
    assert tries(served, "192.0.2.1") == [51]


def test_15_options_are_understood(serve: Serve) -> None:
    """Stock conch takes no line that begins with one."""
    line = f'restrict,from="127.0.0.0/8" {AUTHORIZED}'
    serve(authorized=line).log_in()
    assert keys_that_conch_reads(line.encode()) == []


def test_an_expired_key_is_refused(serve: Serve) -> None:
    assert tries(serve(authorized='expiry-time="20200101" ' + AUTHORIZED)) == [51]


def test_files_are_read_again_when_they_change(serve: Serve) -> None:
    served = serve(authorized="# nobody yet")
    assert tries(served) == [51]
    served.keys.write_text(AUTHORIZED)
    assert tries(served) == [52]
    served.keys.unlink()
    assert tries(served) == [51]
    served.keys.write_text(AUTHORIZED)
    assert tries(served) == [52]


def test_a_file_that_others_may_write_lets_nobody_in(serve: Serve) -> None:
    served = serve()
    served.keys.chmod(0o666)
    assert tries(served) == [51]
    served.keys.chmod(0o644)
    assert tries(served) == [52]


def test_a_file_of_another_user_lets_nobody_in(serve: Serve) -> None:
    served = serve()
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(served.keys, 1234, 1234)
    assert tries(served) == [51]


def test_an_rsa_signature_without_its_leading_zeros_is_good() -> None:
    key = Key(rsa.generate_private_key(65537, 2048))
    proofs = ((b"%d" % n, key.sign(b"%d" % n, signatureType=b"rsa-sha2-256")) for n in range(100_000))
    message, signed = next((message, signed) for message, signed in proofs if signed[20:21] == b"\0")
    proof = signed[20:].lstrip(b"\0")
    assert len(proof) < 256
    assert is_proof(key.public().blob(), b"rsa-sha2-256", proof, message)
    assert not is_proof(key.public().blob(), b"rsa-sha2-256", proof, message + b"!")
    assert not is_proof(key.public().blob(), b"rsa-sha2-256", proof[:-1], message)

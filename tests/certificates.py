"""Certificates for tests, made on the spot."""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Issued = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def issue(name: str, authority: Issued | None, days: float = 1, *, host: str = "") -> Issued:
    """A certificate for a host, which has this name if no other; signed by an authority or, as one, by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer, signer = (authority[0].subject, authority[1]) if authority else (subject, key)
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host or name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    return made, key


def pem(issued: Issued) -> tuple[bytes, bytes]:
    """A certificate and its key as files have them."""
    certificate, key = issued
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_pair(directory: Path, name: str, authority: Issued | None) -> Issued:
    """The files `name`.pem and `name`.key: a certificate for localhost, and its key."""
    issued = issue(name, authority, host="localhost")
    certificate, key = pem(issued)
    (directory / f"{name}.pem").write_bytes(certificate)
    (directory / f"{name}.key").write_bytes(key)
    return issued


def write_pairs(directory: Path) -> Path:
    """An authority, a server and a client whom it knows, and a stranger; returns the directory."""
    authority = write_pair(directory, "authority", None)
    write_pair(directory, "server", authority)
    write_pair(directory, "client", authority)
    write_pair(directory, "stranger", None)
    return directory

"""A listener's `tls` table → the context its connections are made with."""

from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, PKey
from twisted.internet.ssl import AcceptableCiphers, Certificate, CertificateOptions, trustRootFromCertificates

from netd.settings import Secret, TlsSettings

CIPHERS = AcceptableCiphers.fromOpenSSLCipherString("ECDHE+AESGCM:ECDHE+CHACHA20")
"""Of TLS 1.2, those that RFC 9325, section 4.2, recommends: keys made anew each time, and sealed records. Twisted
would take RSA key exchange and CBC as well. TLS 1.3 has no others."""


class TlsUnusable(Exception):
    """A certificate or key cannot be read or used; the text says which and why."""


def make_context(settings: TlsSettings) -> CertificateOptions:
    """Read the files anew and build the context: TLS 1.2 and up, client certificates required if `client_ca` is set.

    Raises TlsUnusable, its text beginning with the key: "certificate: …".
    """
    chain = [X509.from_cryptography(each) for each in read_certificates("certificate", settings.certificate)]
    key = read_private_key("private_key", settings.private_key)
    trust = None
    if settings.client_ca is not None:
        authorities = read_certificates("client_ca", settings.client_ca)
        trust = trustRootFromCertificates([Certificate(X509.from_cryptography(each)) for each in authorities])
    options = CertificateOptions(
        privateKey=key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        trustRoot=trust,
        acceptableCiphers=CIPHERS,
    )
    try:
        context = options.getContext()
        context.check_privatekey()
    except SSL.Error:
        raise TlsUnusable(f"private_key: is not the key of {_source(settings.certificate)}") from None
    context.set_alpn_select_callback(_no_protocol)
    return options


def _no_protocol(_connection: SSL.Connection, _offered: list[bytes]) -> Any:  # pyOpenSSL does not name its type
    """Ignore what a client offers by ALPN, as RFC 7301 wants of who does not know it; Twisted's own ends the handshake.

    Browsers and curl offer h2 and http/1.1, and speak the latter when nothing is chosen.
    """
    return SSL.NO_OVERLAPPING_PROTOCOLS


def _source(pem: Secret) -> str:
    return str(pem.path) if pem.path else "the text in the configuration"


def _read(key: str, pem: Secret) -> bytes:
    try:
        return pem.read().encode()
    except OSError as error:
        hint = "; $CREDENTIALS_DIRECTORY is not set" if "$CREDENTIALS_DIRECTORY" in str(pem.path) else ""
        raise TlsUnusable(f"{key}: {pem.path}: {error.strerror}{hint}") from None
    except UnicodeDecodeError:
        raise TlsUnusable(f"{key}: {pem.path}: not a PEM file") from None


def read_certificates(key: str, pem: Secret) -> list[x509.Certificate]:
    """The certificates of a PEM file, at least one; raises TlsUnusable."""
    try:
        return x509.load_pem_x509_certificates(_read(key, pem))
    except ValueError:
        raise TlsUnusable(f"{key}: {_source(pem)}: holds no certificate in PEM form") from None


def read_private_key(key: str, pem: Secret) -> PKey:
    """The key of a PEM file; raises TlsUnusable."""
    try:
        return PKey.from_cryptography_key(load_pem_private_key(_read(key, pem), password=None))  # type: ignore[arg-type]  # DSA and the like are refused by OpenSSL
    except TypeError:
        raise TlsUnusable(f"{key}: {_source(pem)}: is encrypted, or of a kind TLS does not use") from None
    except (ValueError, UnsupportedAlgorithm):
        raise TlsUnusable(f"{key}: {_source(pem)}: holds no private key in PEM form") from None

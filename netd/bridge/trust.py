"""How netd trusts an amqps:// broker, and is trusted by it."""

from typing import Any

from OpenSSL.crypto import X509
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, trustRootFromCertificates

from netd.bridge.config import BrokerTlsSettings
from netd.tls import read_certificates, read_private_key


def make_client_context(settings: BrokerTlsSettings, host: str) -> IOpenSSLClientConnectionCreator:
    """Read the files anew; the broker must be `host`, by a certificate whose signer is trusted.

    Raises TlsUnusable, its text beginning with the key: "ca: …".
    """
    trust = None  # the system's
    if settings.ca is not None:
        authorities = [X509.from_cryptography(each) for each in read_certificates("ca", settings.ca)]
        trust = trustRootFromCertificates([Certificate(each) for each in authorities])
    own: dict[str, Any] = {}
    if settings.certificate is not None and settings.private_key is not None:
        chain = [X509.from_cryptography(each) for each in read_certificates("certificate", settings.certificate)]
        key = read_private_key("private_key", settings.private_key)
        own = {"privateKey": key, "certificate": chain[0], "extraCertChain": chain[1:]}
    return optionsForClientTLS(host, trustRoot=trust, extraCertificateOptions=own)

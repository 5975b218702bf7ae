"""The files of TLS: chains of certificates and their keys in PEM, and what OpenSSL makes of them.

What is wrong with a file is told without a byte of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from typing import Protocol as Interface

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import Certificate, load_pem_x509_certificates
from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.hazmat import DNS_ID, IPAddress_ID

from gameproxy.keys import KeyFileError, read_file, read_private
from gameproxy.tls_errors import certificate_fault, refused_certificate, tls_fault

_CERTIFICATES_MAX: Final = 4 * 1024 * 1024
"""Bytes of a file of certificates; those of all authorities that a system knows have a quarter of a million."""
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""Those of TLS 1.2 with forward secrecy and authenticated encryption; all of TLS 1.3 are so."""
_OPTIONS: Final = (
    SSL.OP_NO_COMPRESSION
    | SSL.OP_NO_RENEGOTIATION
    | SSL.OP_NO_TICKET
    | SSL.OP_CIPHER_SERVER_PREFERENCE
)
Key = RSAPrivateKey | EllipticCurvePrivateKey | Ed25519PrivateKey | Ed448PrivateKey
"""The private keys of certificates."""
VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}


@dataclass(frozen=True)
class Identity:
    """What one end shows of itself.

    :param chain: its certificate, then those between it and an authority.
    """

    chain: tuple[Certificate, ...]
    key: Key

    @property
    def ends(self) -> datetime:
        """When its certificate expires, in UTC."""
        return self.chain[0].not_valid_after_utc


class Judge(Interface):
    """Asked by OpenSSL about one certificate of a chain."""

    def __call__(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, believed: int
    ) -> bool:
        """Whether to go on.

        :raises SSL.Error: no; and this is why the handshake fails.
        """
        ...


def read_certificates(path: Path) -> tuple[Certificate, ...]:
    """Read one or more certificates.

    :raises KeyFileError: the file cannot be read, or there are none in it.
    """
    data, _ = read_file(path, _CERTIFICATES_MAX)
    try:
        return tuple(load_pem_x509_certificates(data))
    except ValueError as error:
        raise KeyFileError("has no certificates in PEM in it") from error


def read_key(path: Path) -> Key:
    """Read the private key of a certificate, which others may not read.

    :raises KeyFileError: the file cannot be read, others may read it, or there is no key in it that can be used.
    """
    data = read_private(path)
    try:
        key = load_pem_private_key(data, None)
    except TypeError as error:
        raise KeyFileError("is encrypted: nobody is there to give its password") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError("is no private key in PEM") from error
    if not isinstance(key, Key):
        raise KeyFileError("is no key that TLS can use")
    return key


def identity(chain: tuple[Certificate, ...], key: Key) -> Identity:
    """Put a certificate and its key together.

    :raises KeyFileError: the key is another's, or TLS cannot use the two.
    """
    try:
        is_its_key = chain[0].public_key() == key.public_key()
    except (ValueError, UnsupportedAlgorithm):  # it is of a kind that nobody here has keys of
        is_its_key = False
    if not is_its_key:
        raise KeyFileError("is not the key of the certificate")
    found = Identity(chain, key)
    _show(_context(), found)
    return found


def context_for_clients(
    own: Identity, authorities: Sequence[Certificate], minimum: str
) -> SSL.Context:
    """What clients are served with.

    :param authorities: a client must show a certificate from one of these; none: it need not show any.
    :param minimum: the oldest version of TLS, a key of :data:`VERSIONS`.
    """
    context = _context(minimum)
    _show(context, own)
    if authorities:
        _believe(context, authorities)
        for one in authorities:
            context.add_client_ca(one)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, judge_chain)
    return context


def context_for_servers(
    own: Identity | None, authorities: Sequence[Certificate], judge: Judge
) -> SSL.Context:
    """What game servers are dialled with.

    :param own: shown to game servers that want a certificate, or ``None``.
    :param authorities: a game server must show a certificate from one of these; none: from one that the system knows.
    :param judge: asked about each certificate of a chain, the game server's own last.
    """
    context = _context()
    if own is not None:
        _show(context, own)
    if authorities:
        _believe(context, authorities)
    else:
        context.set_default_verify_paths()
    context.set_verify(SSL.VERIFY_PEER, judge)
    return context


def expected_identity(name: str) -> DNS_ID | IPAddress_ID:
    """What the certificate of a host must be for (RFC 9525).

    :param name: a host name or an IP address.
    :raises ValueError: it is neither.
    """
    try:
        return IPAddress_ID(str(ip_address(name.partition("%")[0])))
    except ValueError:
        return DNS_ID(name.encode("idna").decode("ascii"))


def judge_chain(
    connection: SSL.Connection, certificate: X509, error: int, depth: int, believed: int
) -> bool:
    """A :class:`Judge` who leaves it to OpenSSL, and says why."""
    if not believed:
        raise refused_certificate(certificate_fault(error))
    return True


def _context(minimum: str = "1.2") -> SSL.Context:
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(VERSIONS[minimum])
    context.set_options(_OPTIONS)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_session_id(b"gameproxy")
    context.set_cipher_list(_CIPHERS)
    return context


def _show(context: SSL.Context, own: Identity) -> None:
    first, *others = own.chain
    try:
        context.use_certificate(first)
        context.use_privatekey(own.key)
        for one in others:
            context.add_extra_chain_cert(one)
    except SSL.Error as error:
        raise KeyFileError(f"cannot be used for TLS: {tls_fault(error)}") from error


def _believe(context: SSL.Context, authorities: Sequence[Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for one in authorities:
        store.add_cert(X509.from_cryptography(one))

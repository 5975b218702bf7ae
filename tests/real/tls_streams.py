"""TLS for the clients and game servers that a test moves by hand: Twisted's own, none of the proxy's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from OpenSSL.SSL import Connection
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import (
    Certificate,
    CertificateOptions,
    PrivateCertificate,
    optionsForClientTLS,
    trustRootFromCertificates,
)
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.authority import Authority, Issued, pem
from tests.real.streams import Stream


class TlsStream(Stream):
    """One end of a connection with TLS.

    :ivar why: how it was lost.
    """

    why: Failure | None = None

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.why = reason
        super().connectionLost(reason)

    @property
    def tls(self) -> Connection:
        """The connection, as OpenSSL has it."""
        connection: Connection = self.transport.getHandle()
        return connection

    @property
    def serial(self) -> int:
        """That of the certificate that the other end has shown."""
        certificate = self.tls.get_peer_certificate()
        assert certificate is not None
        return certificate.get_serial_number()


def private(issued: Issued) -> PrivateCertificate:
    """A certificate and its key as Twisted has them."""
    key = issued.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return PrivateCertificate.loadPEM(pem(issued.chain[0]) + key)


def trusting(*authorities: Authority) -> Any:
    """Whom one end believes."""
    return trustRootFromCertificates(
        [Certificate.loadPEM(pem(one.certificate)) for one in authorities]
    )


def client_options(
    authority: Authority, name: str = "play.example", shows: Issued | None = None, **more: Any
) -> Any:
    """The TLS of a client.

    :param name: of the proxy.
    :param shows: its certificate.
    """
    own = private(shows) if shows else None
    return optionsForClientTLS(name, trusting(authority), own, extraCertificateOptions=more)


def server_options(shows: Issued, wants: Authority | None = None, **more: Any) -> Any:
    """The TLS of a game server.

    :param wants: whose certificates a proxy must show.
    """
    own = private(shows)
    chain = [Certificate.loadPEM(pem(one)).original for one in shows.chain[1:]]
    trust = {"trustRoot": trusting(wants)} if wants else {}
    return CertificateOptions(
        own.privateKey.original, own.original, extraCertChain=chain, **trust, **more
    )


async def connect_tls(port: int, options: Any, before: bytes = b"") -> TlsStream:
    """Connect to a port, say something in the clear, then begin TLS; the handshake is under way."""
    stream = TlsStream()
    factory: IProtocolFactory = TLSMemoryBIOFactory(
        options, True, Factory.forProtocol(lambda: stream), reactor
    )
    if before:
        factory = _Before(before, factory)
    await TCP4ClientEndpoint(reactor, "127.0.0.1", port).connect(factory)
    return stream


class _Before(Factory):
    """Says something on each connection before another factory's protocol has it."""

    noisy = False

    def __init__(self, said: bytes, then: IProtocolFactory) -> None:
        self._said = said
        self._then = then

    def buildProtocol(self, address: Any) -> Any:
        protocol = self._then.buildProtocol(address)
        make_connection = protocol.makeConnection

        def say_and_connect(transport: Any) -> None:
            transport.write(self._said)
            make_connection(transport)

        protocol.makeConnection = say_and_connect
        return protocol


class Dripping:
    """A port that passes what comes on to another, both ways, a byte a segment."""

    def __init__(self, to: int) -> None:
        self._to = to
        self.port: Any = None

    async def __aenter__(self) -> int:
        factory = Factory.forProtocol(lambda: _Drip(self._to))
        factory.noisy = False
        self.port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        number: int = self.port.getHost().port
        return number

    async def __aexit__(self, *_: object) -> None:
        await self.port.stopListening()


class _Drip(Protocol):
    """One end of such a connection: what comes goes to the other end."""

    transport: Any

    def __init__(self, to: int | None) -> None:
        self._connect_to = to
        self._other: _Drip | None = None
        self._waiting = bytearray()
        self._over = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        if self._connect_to is not None:
            other = _Drip(None)
            other._other = self
            factory = Factory.forProtocol(lambda: other)
            factory.noisy = False
            done = TCP4ClientEndpoint(reactor, "127.0.0.1", self._connect_to).connect(factory)
            done.addCallback(self._connected)

    def _connected(self, other: _Drip) -> None:
        self._other = other
        other._drip()

    def dataReceived(self, data: bytes) -> None:
        other = self._other
        if other is None:  # the far end is not there yet: keep it for then
            reactor.callLater(0.01, self.dataReceived, data)
            return
        idle = not other._waiting
        other._waiting += data
        if idle:
            other._drip()

    def _drip(self) -> None:
        if self._waiting and not self._over:
            self.transport.write(bytes(self._waiting[:1]))
            del self._waiting[:1]
            reactor.callLater(0, self._drip)
        elif self._other is not None and self._other._over:
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._over = True
        if self._other is not None and not self._other._waiting:
            self._other._drip()


def folder_of(authority: Authority, folder: Path, **issued: Issued) -> None:
    """Put an authority and what was issued into a folder, each as ``NAME.pem`` and ``NAME.key``."""
    authority.write(folder, "ca")
    for name, one in issued.items():
        one.write(folder, name)

"""TLS at both ends: what clients are shown, and what game servers must prove."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity import CertificateError, VerificationError
from service_identity.cryptography import extract_patterns
from service_identity.hazmat import DNS_ID, verify_service_identity
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IOpenSSLClientConnectionCreator,
    IOpenSSLServerConnectionCreator,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.certificates import (
    Identity,
    context_for_clients,
    context_for_servers,
    expected_identity,
    identity,
    judge_chain,
    read_certificates,
    read_key,
)
from gameproxy.config import Config
from gameproxy.config_problems import ConfigurationError, Problem
from gameproxy.keys import KeyFileError, Mark, file_mark
from gameproxy.tls_errors import refused_certificate, tls_fault

LOOK_INTERVAL: Final = 60.0
"""Seconds for which the files are taken to be those that were read."""
_NOT_PROVED: Final = "what it shows is not what was judged"
T = TypeVar("T")


class CredentialsError(ConfigurationError):
    """Files of ``[tls]`` cannot be used.

    :param problems: all that is wrong with them, each with its place in the configuration.
    """

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__(problems)
        self.problems = list(problems)

    def __str__(self) -> str:
        return "\n".join(": ".join(problem) for problem in self.problems)


class NotProved(Exception):
    """A game server did not prove over TLS who it is, or could not be spoken with. The text says why."""


@implementer(IOpenSSLServerConnectionCreator, IOpenSSLClientConnectionCreator)
class Credentials:
    """What ``[tls]`` names: what this proxy shows, and whom it believes.

    Its files are read when it is made, when it is told to, and when a connection is made and they have changed; then
    new connections have what was read, if all of it can be used, and else go on with what was there.

    :raises CredentialsError: a file cannot be used.
    """

    log = Logger()
    _config: Config
    _names: Mapping[str, str]
    _looked_at: float
    _marks: list[Mark]
    _contexts: _Contexts

    def __init__(self, config: Config, clock: IReactorTime) -> None:
        self._clock = clock
        self.prepare(config)()

    def prepare(self, config: Config) -> Callable[[], None]:
        """Read what another configuration names.

        :return: has all new connections have that.
        :raises CredentialsError: a file cannot be used.
        """
        names = {
            server.id: server.tls_name or server.host for server in config.servers if server.tls
        }
        # Before they are read: what is changed meanwhile is read again.
        looked_at, marks = self._clock.seconds(), _marks(config)
        contexts = _Contexts.read(config, bool(names))

        def apply() -> None:
            self._config, self._names = config, names
            self._looked_at, self._marks, self._contexts = looked_at, marks, contexts
            self._warn_of_ends()

        return apply

    def reload(self) -> None:
        """Read all files again; who is connected stays so.

        :raises CredentialsError: one cannot be used, and nothing has changed.
        """
        self._looked_at = self._clock.seconds()
        self._marks = _marks(self._config)
        self._contexts = _Contexts.read(self._config, bool(self._names))
        self._warn_of_ends()

    def towards(self, server: str, endpoint: IStreamClientEndpoint) -> IStreamClientEndpoint:
        """The endpoint of a game server, with TLS if it is to be dialled so.

        :param server: its id.
        """
        name = self._names.get(server)
        return endpoint if name is None else TlsEndpoint(endpoint, self, name, self._clock)

    def factory(self, wrapped: IProtocolFactory) -> TlsServerFactory:
        """What a port that clients come to by TLS listens with."""
        return TlsServerFactory(self, False, wrapped, self._clock)

    # What Twisted calls for each connection

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self._look()
        assert self._contexts.for_clients is not None, "tls.certificate is needed"
        return SSL.Connection(self._contexts.for_clients, None)

    def clientConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        self._look()
        assert self._contexts.for_servers is not None
        connection = SSL.Connection(self._contexts.for_servers, None)
        proving = protocol.wrappedProtocol
        assert isinstance(proving, _Proving)
        connection.set_app_data(protocol)  # as later releases of Twisted do themselves
        if proving.server_name is not None:
            connection.set_tlsext_host_name(proving.server_name)
        return connection

    def _look(self) -> None:
        if 0 <= self._clock.seconds() - self._looked_at < LOOK_INTERVAL:
            return
        self._looked_at = self._clock.seconds()
        if _marks(self._config) == self._marks:
            self._warn_of_ends()
            return
        try:
            self.reload()
        except CredentialsError as error:
            self.log.error(
                "The files of [tls] have changed and cannot be used, so what was read before is: {problems}",
                problems="; ".join(str(error).splitlines()),
            )
        else:
            self.log.info("The files of [tls] have changed, and were read again.")

    def _warn_of_ends(self) -> None:
        now = datetime.fromtimestamp(self._clock.seconds(), UTC)
        for place, own in self._contexts.own:
            if own.ends <= now:
                self.log.warn(
                    "The certificate of {place} has expired: nobody should believe it.", place=place
                )


@dataclass(frozen=True)
class _Contexts:
    """What was made of the files.

    :param own: what is shown, and the place of each.
    """

    for_clients: SSL.Context | None
    for_servers: SSL.Context | None
    own: tuple[tuple[str, Identity], ...]

    @classmethod
    def read(cls, config: Config, dials: bool) -> _Contexts:
        """Read all that ``[tls]`` names.

        :param dials: whether there are game servers to be dialled by TLS.
        :raises CredentialsError: with all that is wrong.
        """
        files = _Files(config)
        shown = files.identity("certificate", "key")
        shown_to_servers = files.identity("servers_certificate", "servers_key")
        clients_ca = files.read("client_ca", read_certificates) or ()
        servers_ca = files.read("servers_ca", read_certificates) or ()
        if files.problems:
            raise CredentialsError(files.problems)
        own = (("tls.certificate", shown), ("tls.servers_certificate", shown_to_servers))
        return cls(
            context_for_clients(shown, clients_ca, config.tls.minimum) if shown else None,
            context_for_servers(shown_to_servers, servers_ca, _judge) if dials else None,
            tuple((place, one) for place, one in own if one is not None),
        )


@dataclass
class _Files:
    """Reads files that ``[tls]`` names, and keeps what is wrong with them."""

    config: Config
    problems: list[Problem] = field(default_factory=list)

    def read(self, key: str, reader: Callable[[Path], T]) -> T | None:
        """What a key names; ``None`` if that is nothing, or cannot be used."""
        name: str = getattr(self.config.tls, key)
        if not name:
            return None
        path = self.config.resolve(name)
        try:
            return reader(path)
        except KeyFileError as error:
            self.problems.append((f"tls.{key}", f"{path} {error}"))
            return None

    def identity(self, certificate: str, key: str) -> Identity | None:
        """What two keys name."""
        chain = self.read(certificate, read_certificates)
        if chain is None:
            self.read(key, read_key)
            return None
        return self.read(key, lambda path: identity(chain, read_key(path)))


class TlsServerFactory(TLSMemoryBIOFactory):
    """Puts TLS before what another factory makes, if it makes something."""

    def buildProtocol(self, addr: IAddress | None) -> TLSMemoryBIOProtocol | None:  # type: ignore[override]  # as factories may
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self.protocol(self, wrapped)


@implementer(IStreamClientEndpoint)
class TlsEndpoint:
    """Another endpoint with TLS: connected is who has proved to have a name. Fails with :class:`NotProved`.

    :param name: the host name or IP address that its certificate must be for.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        credentials: Credentials,
        name: str,
        clock: IReactorTime,
    ) -> None:
        self._endpoint = endpoint
        self._credentials = credentials
        self._name = name
        self._clock = clock

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect, and see who is there."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        proving = _Proving(self._name, factory)
        once = Factory.forProtocol(lambda: proving)
        await self._endpoint.connect(
            TLSMemoryBIOFactory(self._credentials, True, once, self._clock)
        )
        return await proving.proved


@implementer(IHandshakeListener)
class _Proving(Protocol):
    """Stands in the place of a protocol until the handshake is over and the other end has proved who it is.

    :param factory: makes the protocol then.
    :ivar proved: fires with the protocol.
    :ivar server_name: what is asked for (SNI, RFC 6066); ``None`` for an IP address.
    """

    noisy = False

    def __init__(self, name: str, factory: IProtocolFactory) -> None:
        self.proved: Deferred[IProtocol] = Deferred(self._give_up)
        self._name = name
        self._factory = factory
        self._expected = expected_identity(name)
        self._is_as_expected = False
        self.server_name: bytes | None = None
        if isinstance(self._expected, DNS_ID):
            self.server_name = self._expected.hostname

    def judge(self, certificate: X509) -> None:
        """See whether the certificate of the other end is for whom it should be.

        :raises SSL.Error: it is not.
        """
        try:
            patterns = extract_patterns(certificate.to_cryptography())
            verify_service_identity(patterns, [self._expected], [])
        except (VerificationError, CertificateError) as error:
            raise refused_certificate(f"its certificate is not for {self._name}") from error
        self._is_as_expected = True

    # What TLS calls

    def handshakeCompleted(self) -> None:
        transport = self.transport
        assert isinstance(transport, TLSMemoryBIOProtocol)
        if not self._is_as_expected:  # OpenSSL has not asked: so nobody has proved anything
            transport.abortConnection()
            self._fail(_NOT_PROVED)
            return
        protocol = self._factory.buildProtocol(transport.getPeer())
        transport.wrappedProtocol = protocol
        protocol.makeConnection(transport)
        self.proved.callback(protocol)

    def connectionLost(self, reason: Failure | None = None) -> None:
        fault = tls_fault(reason.value) if reason is not None else ""
        self._fail(fault or "it closed the connection in the handshake")

    def _give_up(self, _: Deferred[IProtocol]) -> None:
        if self.transport is not None:
            self.transport.abortConnection()  # type: ignore[attr-defined]  # TLS has it
        self._fail("the handshake took too long")

    def _fail(self, why: str) -> None:
        if not self.proved.called:
            self.proved.errback(NotProved(f"TLS: {why}"))


def _judge(
    connection: SSL.Connection, certificate: X509, error: int, depth: int, believed: int
) -> bool:
    """Is a game server's certificate believed, and is it for whom was dialled?"""
    judge_chain(connection, certificate, error, depth, believed)
    if depth == 0:
        connection.get_app_data().wrappedProtocol.judge(certificate)
    return True


def _marks(config: Config) -> list[Mark]:
    """What changes with the files of ``[tls]``, of each."""
    return [file_mark(config.resolve(name)) for name in config.tls.files if name]

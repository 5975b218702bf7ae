"""Where clients come in: what listens, and what stands between a port and a session."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorTime,
    IStreamServerEndpoint,
)

from gameproxy.admission import Admission
from gameproxy.client_side import ClientFactory
from gameproxy.config import Config
from gameproxy.config_values import listening_endpoint
from gameproxy.interfaces import Peer
from gameproxy.listening import raise_now
from gameproxy.proxied import HeaderCounts, ProxiedFactory
from gameproxy.tls import Credentials
from gameproxy.wire import Wire


class Doors:
    """The ports of a proxy: of ``[proxy]``, of ``[tls]``, and of ``[proxy_protocol]``.

    :param sessions: bounds what waits for its header.
    :param has_room: whether another client can be taken at all.
    :param accept: called with each connection, and where its client comes from.
    :ivar headers: what has come to the ports of ``[proxy_protocol]``.
    """

    def __init__(
        self,
        config: Config,
        reactor: IReactorTime,
        sessions: Admission,
        credentials: Credentials,
        has_room: Callable[[], bool],
        accept: Callable[[Wire, Peer], None],
    ) -> None:
        self.headers = HeaderCounts()
        self._config = config
        self._reactor = reactor
        clear = ClientFactory(reactor, has_room, accept)
        secure = credentials.factory(clear)
        section = config.proxy_protocol
        proxied = ProxiedFactory(
            reactor,
            section.networks,
            section.timeout,
            sessions,
            self.headers,
            secure if section.tls else clear,
        )
        self._kinds: Sequence[tuple[str, Sequence[str], IProtocolFactory]] = (
            ("proxy", config.proxy.listen, clear),
            ("tls", config.tls.listen, secure),
            ("proxy_protocol", section.listen, proxied),
        )

    def listen(
        self, instead: Sequence[IStreamServerEndpoint] | None = None
    ) -> Iterator[Deferred[IListeningPort]]:
        """Listen, in the order of the sections.

        :param instead: endpoints in place of those of ``[proxy]``.
        :raises ValueError: there is no such endpoint; with its place. Then nothing listens.
        :raises CannotListenError: an address cannot be listened at.
        """
        endpoints: list[tuple[IStreamServerEndpoint, IProtocolFactory]] = []
        for section, descriptions, factory in self._kinds:
            if section == "proxy" and instead is not None:
                endpoints += [(one, factory) for one in instead]
                continue
            for index, description in enumerate(descriptions):
                try:
                    endpoints.append((listening_endpoint(self._reactor, description), factory))
                except ValueError as error:
                    raise ValueError(f"{section}.listen[{index}]: {error}") from error
        for endpoint, factory in endpoints:
            listening = endpoint.listen(factory)
            raise_now(listening)
            yield listening

"""The service that joins the rooms: what runs under twist, and what other Twisted programs embed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, cast

from twisted.application.service import Service
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.admin import Watch
from gameproxy.admission import Admission
from gameproxy.auth import HashingThreads
from gameproxy.client_side import ClientSide, EarlyBytes, idle_time
from gameproxy.config import Config
from gameproxy.config_changes import Change
from gameproxy.config_problems import ConfigurationError as ConfigurationError
from gameproxy.control import ControlSocket
from gameproxy.dialect import Dialect
from gameproxy.doors import Doors
from gameproxy.draining import Drain
from gameproxy.farm import FarmStore, GameFarm, GameServerStarter
from gameproxy.farm.selection import Selector
from gameproxy.host import Host
from gameproxy.interfaces import (
    Attempt,
    Entropy,
    Introduction,
    Outcome,
    Peer,
    Reactor,
    Relay,
    SessionRecord,
    Slot,
)
from gameproxy.key_ring import KeyRing
from gameproxy.limits import Limits
from gameproxy.listening import address_of, raise_now
from gameproxy.logins import Logins
from gameproxy.metrics import Metrics
from gameproxy.naming import naming
from gameproxy.operators import Operators
from gameproxy.phases import Phase
from gameproxy.reasons import Refusal
from gameproxy.relay import Relays
from gameproxy.reloading import Reloading
from gameproxy.server_side import Dialling, ServerSide
from gameproxy.session import Session
from gameproxy.session_log import SessionLog
from gameproxy.tls import Credentials
from gameproxy.wire import Side, Wire

SESSION_ID_BYTES: Final = 16


class GameProxy(Service):
    """A gameproxy: starts listening when it is started, and drains when it is stopped.

    What the configuration names, a program can give as an object instead.

    :param config: a loaded :class:`~gameproxy.config.Config`, or one made of objects.
    :param reactor: does all that has to do with network, time, threads and processes.
    :param portal: a :class:`twisted.cred.portal.Portal` in place of that of ``[auth]``.
    :param selector: chooses game servers in place of ``[selection] strategy``.
    :param on_session_end: called with a :class:`~gameproxy.interfaces.SessionRecord` for each session that is over.
    :param endpoints: stream server endpoints in place of ``[proxy] listen``.
    :param checkers: credentials checkers that take the place of what ``[auth]`` says for their credentials.
    :param entropy: gives random bytes.
    :param host: the machine that it runs on, if that is not this one.
    :param control: whether operators' commands may ask this proxy, at a UNIX socket beside the database.
    :param file: the file that the configuration was read from; a reload reads it again.
    :ivar started: fires when clients are served; fails when the farm cannot be opened, or an endpoint fails late.
    :ivar limits: what clients may do, and how often they did more.
    :ivar drain: how it is being stopped; ``None`` while it is not.
    :ivar headers: what has come to the ports of ``[proxy_protocol]``: a :class:`~gameproxy.proxied.HeaderCounts`.
    :ivar hindrance: why no new clients are served, in a word; empty when they are.
    :raises ConfigurationError: a file that the configuration names cannot be used.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Reactor,
        portal: Portal | None = None,
        selector: Selector | None = None,
        on_session_end: Callable[[SessionRecord], None] | None = None,
        endpoints: Sequence[IStreamServerEndpoint] | None = None,
        *,
        checkers: Iterable[ICredentialsChecker] = (),
        entropy: Entropy = os.urandom,
        host: Host | None = None,
        control: bool = True,
        file: Path | None = None,
    ) -> None:
        self.started: Deferred[None] = Deferred()
        self.file = file
        self.drain: Drain | None = None
        self.hindrance = "starting"
        self.metrics = Metrics()
        self.clock = reactor
        self.games = config.game_names
        self.auth_timeout = config.auth.timeout
        self.limits = Limits(config.limits, reactor)
        bounds = config.proxy.max_sessions, config.proxy.max_unauthenticated
        self.sessions = Admission(*bounds, self.limits.addresses)
        self._config = config
        self._reactor = reactor
        self._entropy = entropy
        self._on_session_end = on_session_end
        self._endpoints = endpoints
        self._selector = selector
        self._host = host or Host()
        self._format = config.framing.frame_format
        self._dialect = Dialect(config.dialect.client, self._format)
        self.early_bytes = EarlyBytes()
        self._session_log = SessionLog(reactor)
        self._hashing = HashingThreads(reactor, self._host.password_threads)
        self._listening: list[Deferred[None]] = []
        self._stopped: Deferred[None] | None = None
        self._keys = KeyRing(config, entropy)
        self._credentials = Credentials(config, reactor)
        self._doors = Doors(
            config, reactor, self.sessions, self._credentials, self._has_room, self._accept
        )
        self.headers = self._doors.headers
        disturbs = self._host.disturbs
        self._logins = Logins(config, reactor, portal, checkers, self._hashing.run, disturbs)
        self.authenticator = self._logins.authenticator
        self._dialling = Dialling(
            reactor=reactor,
            entropy=entropy,
            format=self._format,
            dialect=self._dialect,
            admission=config.dialect.admission,
            connect_timeout=config.selection.connect_timeout,
            handshake_timeout=config.selection.handshake_timeout,
            disturbs=disturbs,
            secure=self._credentials.towards,
        )
        with naming("proxy.relay"):
            limits = self.limits.relay(config.limits)
            self._relays = Relays(config.proxy, reactor, self._dialect, disturbs, limits)
        self.farm = self._open_farm()
        self._control: ControlSocket | None = None
        operators = Operators(self.sessions, self.farm, self._relays.state, reactor, self)
        if control:
            database = config.database_path
            self._control = ControlSocket(reactor, database, self.farm.proxy, operators.answer)
        self._watch = Watch(config, reactor, entropy, self, operators)
        self._reloading = Reloading(
            config,
            file,
            (
                self._keys.prepare,
                self._credentials.prepare,
                self._logins.prepare,
                self._prepare_bounds,
                self._doors.prepare,
                self._watch.prepare,
                self._prepare_rest,
            ),
            self._doors.open,
            self.farm.list_servers,
            lambda: self.hindrance,
            reactor,
        )

    @property
    def ports(self) -> list[IListeningPort]:
        """Where it listens, once it is started."""
        return self._doors.ports

    # The service's life

    def privilegedStartService(self) -> None:
        """Listen; ports below 1024 may need it before privileges are dropped.

        :raises CannotListenError: an address cannot be listened at.
        :raises ConfigurationError: there is no such endpoint, or there are too few descriptors.
        """
        if self._listening:
            return
        with naming("proxy.max_sessions"):
            self._host.ensure_descriptors(self._config.proxy.max_sessions)
        with naming("proxy.relay"):
            self._relays.load()
        try:
            self._listening.extend(self._doors.listen(self._endpoints))
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self._listening.append(self._watch.start())
        raise_now(self._listening[-1])

    def startService(self) -> None:
        """Open the farm, and listen if that was not done yet. What was stopped cannot be started again.

        :raises CannotListenError: an address cannot be listened at.
        :raises ConfigurationError: there is no such endpoint, or there are too few descriptors.
        """
        self.privilegedStartService()
        super().startService()
        self._hashing.start()
        farm = Deferred.fromCoroutine(self._start_farm())
        opened = gatherResults([farm, *self._listening], consumeErrors=True)
        opened.addCallbacks(self._has_started, self._not_started)

    async def _start_farm(self) -> None:
        await self.farm.start()
        if self._control is not None:
            proxies = await self.farm.proxies()
            if self.running:
                self._control.open(proxies)

    def reload_certificates(self) -> None:
        """Read the files of ``[tls]`` again: all new connections have what is in them, those that are there go on.

        :raises ConfigurationError: one cannot be used; then all is as before.
        """
        self._credentials.reload()

    def reload(self, config: Config | None = None) -> Deferred[list[Change]]:
        """Go on with a changed configuration, or, where anything of it cannot be, as before. No session is ended.

        :param config: ``None``: what stands in ``file`` now.
        :return: fires with what has changed; fails with :class:`~gameproxy.config.ConfigError`, and then nothing has.
        """
        return self._reloading.reload(config)

    def hasten(self) -> None:
        """End the sessions that are left of a proxy that is being stopped, as if its grace were over."""
        if self.drain is not None:
            self.drain.hasten()

    def stopService(self) -> Deferred[None]:
        """Drain: listen no more, let sessions go on for ``drain_grace`` seconds, end those that are left, and let go of
        the farm. Started game servers go on running.

        :return: fires when all that is done; so does that of a second call meanwhile.
        """
        super().stopService()
        self.hindrance = "draining"
        if self.drain is None:
            self.drain = Drain(self.sessions, self._config.proxy, self._reactor)
            self._stopped = Deferred.fromCoroutine(self._stop(self.drain))
        assert self._stopped is not None
        told: Deferred[None] = Deferred()
        self._stopped.chainDeferred(told)
        return told

    async def _stop(self, drain: Drain) -> None:
        for listening in self._listening:
            listening.cancel()
        await gatherResults(self._doors.close())
        await drain.wait()
        self._relays.close()
        if self._control is not None:
            self._control.close()
        await self.farm.stop()
        await self._hashing.stop()
        self._session_log.flush()
        await self._watch.stop()

    def _has_started(self, _: object) -> None:
        self.log.info(
            "gameproxy serves {games} at {addresses}.",
            games=", ".join(self.games),
            addresses=", ".join(address_of(port) for port in self.ports),
        )
        if self.running:
            self.hindrance = ""
        self.started.callback(None)

    def _not_started(self, failure: Failure) -> None:
        if self.running:  # on: nobody can be served without a farm
            self._doors.close()
        cause = failure.value
        self.started.errback(cause.subFailure if isinstance(cause, FirstError) else failure)

    # What its sessions need (gameproxy.interfaces.Surroundings)

    def attempt(self, slot: Slot, introduction: Introduction) -> Attempt:
        """Begin to connect a session to the game server of its slot."""
        return ServerSide(self._dialling, slot, introduction)

    def relay(self, client: Side, server: Side, on_end: Callable[[Outcome], None]) -> Relay:
        """Make the relay between a client and the game server that has admitted it."""
        return self._relays.between(client, server, on_end)

    def identified(self, session: str) -> None:
        """A session has proved who it is."""
        self.sessions.identified(session)

    def passed(self, phase: Phase, seconds: float) -> None:
        """A session has come through a part of its way."""
        self.metrics.phases[phase].add(seconds)

    def ended(self, record: SessionRecord) -> None:
        """A session is over."""
        self.sessions.leave(record.session)
        self.metrics.session_ended(record)
        self.limits.session_ended(record, self.farm)
        self._session_log.ended(record)
        if self._on_session_end is not None:
            self._session_log.tell(self._on_session_end, record)
        if self.drain is not None:
            self.drain.session_ended()

    def _has_room(self) -> bool:
        if self.sessions.has_room():
            return True
        self.metrics.turned_away += 1
        self._session_log.turned_away()
        return False

    def _accept(self, wire: Wire, peer: Peer) -> None:
        """A client has connected."""
        wire.keep_alive(idle_time(self._entropy), self._config.proxy.stall_timeout)
        client = ClientSide(wire, self._format, self._dialect, self.early_bytes)
        id = self._entropy(SESSION_ID_BYTES).hex()
        session = client.session = Session(id, peer, client, self)
        refusal = self.sessions.enter(session)
        session.inputs.start()
        if refusal is not None:
            session.inputs.end(refusal)
            if not self.sessions.can_tell:
                wire.abort()
            return
        allowed = self.farm.check_address(session.peer.address)
        allowed.addErrback(self._not_allowed, session)

    def _not_allowed(self, failure: Failure, session: Session) -> None:
        session.inputs.end(cast(Refusal, failure.value))

    # What the configuration names, made

    def _prepare_bounds(self, config: Config) -> Callable[[], None]:
        """``[limits]``, and what else bounds sessions and relays."""
        proxy = config.proxy
        with naming("proxy.max_sessions"):
            self._host.ensure_descriptors(proxy.max_sessions)

        def apply() -> None:
            self.sessions.reconfigure(proxy.max_sessions, proxy.max_unauthenticated)
            self.limits.reconfigure(config.limits, self.sessions.let_in())
            self._relays.reconfigure(proxy, self.limits.relay(config.limits))

        return apply

    def _prepare_rest(self, config: Config) -> Callable[[], None]:
        """What can always be as the configuration says. After all else: the farm looks at once whom it can serve."""

        def apply() -> None:
            self._config = config
            self.games = config.game_names
            self.auth_timeout = config.auth.timeout
            selection = config.selection
            self._dialling = replace(
                self._dialling,
                connect_timeout=selection.connect_timeout,
                handshake_timeout=selection.handshake_timeout,
            )
            self.farm.reconfigure(config)

        return apply

    def _open_farm(self) -> GameFarm:
        config = self._config
        host = self._host
        key_for = self._keys.key_for
        database = config.database_path
        starter = GameServerStarter(
            self._reactor, host.processes, config.folder, database, host.environment, key_for
        )
        return GameFarm(
            config,
            FarmStore(str(database), self._reactor, host.database_threads, host.disturbs),
            starter,
            host.processes,
            self._reactor,
            self._entropy,
            key_for,
            self.sessions.end,
            self.sessions.doubt,
            self._selector,
            host.disturbs,
        )

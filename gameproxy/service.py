"""The service that joins the rooms: what runs under twist, and what other Twisted programs embed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, cast

from twisted.application.service import Service
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, FirstError, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.admin import Watch
from gameproxy.admission import Admission, TooFewDescriptors
from gameproxy.auth import CredAuthenticator, HashingThreads, PasswordFileError, build_portal
from gameproxy.auth.tickets import VerifyingKey
from gameproxy.client_side import ClientSide, EarlyBytes, idle_time
from gameproxy.config import Config
from gameproxy.config_problems import ConfigurationError as ConfigurationError
from gameproxy.control import ControlSocket
from gameproxy.dialect import Dialect
from gameproxy.doors import Doors
from gameproxy.farm import FarmStore, GameFarm, GameServerStarter
from gameproxy.farm.selection import Selector
from gameproxy.handshake import derive_server_key
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
from gameproxy.keys import KeyFileError, read_key_file, read_secret, read_ticket_key
from gameproxy.limits import Limits
from gameproxy.listening import address_of, raise_now
from gameproxy.metrics import Metrics
from gameproxy.operators import Operators
from gameproxy.phases import Phase
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.relay import PlaneUnavailable, Relays
from gameproxy.server_side import Dialling, ServerSide
from gameproxy.session import Session
from gameproxy.session_log import SessionLog
from gameproxy.tls import Credentials, CredentialsError
from gameproxy.wire import Side, Wire

SESSION_ID_BYTES: Final = 16
KEYS_KEPT: Final = 1024
"""Derived keys of game servers that are kept: each session needs one."""
LAST_WORDS_TIME: Final = 5.0
"""Seconds, beyond ``stall_timeout``, in which all connections are ended when the grace of a drain is over."""


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
    :ivar started: fires when clients are served; fails when the farm cannot be opened, or an endpoint fails late.
    :ivar ports: where it listens, once it is started.
    :ivar limits: what clients may do, and how often they did more.
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
    ) -> None:
        self.started: Deferred[None] = Deferred()
        self.ports: list[IListeningPort] = []
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
        self._drained: Deferred[None] | None = None
        secret, keys = self._read_keys()
        with _naming():
            self._credentials = Credentials(config, reactor)
        self._doors = Doors(
            config, reactor, self.sessions, self._credentials, self._has_room, self._accept
        )
        self.headers = self._doors.headers
        self._portal = portal or self._build_portal(checkers)
        disturbs = self._host.disturbs
        self.authenticator = CredAuthenticator(
            self._portal,
            reactor,
            password_without_tls=config.auth.password_without_tls,
            disturbs=disturbs,
        )
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
        with _naming("proxy.relay"):
            self._relays = Relays(config.proxy, reactor, self._dialect, disturbs, self.limits.relay)
        derived = lru_cache(KEYS_KEPT)(partial(derive_server_key, secret))
        self.farm = self._open_farm(lambda id: keys.get(id) or derived(id))
        self._control: ControlSocket | None = None
        operators = Operators(self.sessions, self.farm, self._relays.state, reactor)
        if control:
            database = config.database_path
            self._control = ControlSocket(reactor, database, self.farm.proxy, operators.answer)
        self._watch = Watch(config, reactor, entropy, self, operators)

    # The service's life

    def privilegedStartService(self) -> None:
        """Listen; ports below 1024 may need it before privileges are dropped.

        :raises CannotListenError: an address cannot be listened at.
        :raises ConfigurationError: there is no such endpoint, or there are too few descriptors.
        """
        if self._listening:
            return
        try:
            self._host.ensure_descriptors(self._config.proxy.max_sessions)
        except TooFewDescriptors as error:
            raise ConfigurationError(f"proxy.max_sessions: {error}") from error
        with _naming("proxy.relay"):
            self._relays.load()
        try:
            for opening in self._doors.listen(self._endpoints):
                self._listening.append(opening.addCallback(self.ports.append))
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
        with _naming():
            self._credentials.reload()

    def stopService(self) -> Deferred[None]:
        """Drain: listen no more, let sessions go on for ``drain_grace`` seconds, end those that are left, and let go of
        the farm. Started game servers go on running.

        :return: fires when all that is done; so does that of a second call meanwhile.
        """
        super().stopService()
        self.hindrance = "draining"
        if self._stopped is None:
            self._stopped = Deferred.fromCoroutine(self._stop())
        told: Deferred[None] = Deferred()
        self._stopped.chainDeferred(told)
        return told

    async def _stop(self) -> None:
        for listening in self._listening:
            listening.cancel()
        closing = [maybeDeferred(port.stopListening) for port in self.ports]
        await gatherResults([one.addErrback(self._log_failure) for one in closing])
        self.ports.clear()
        if self.sessions:
            await self._drain()
        self._relays.close()
        if self._control is not None:
            self._control.close()
        await self.farm.stop()
        await self._hashing.stop()
        self._session_log.flush()
        await self._watch.stop()

    async def _drain(self) -> None:
        """Wait until there are no sessions; end them when the grace is over."""
        grace = self._config.proxy.drain_grace
        self.log.info(
            "Draining: {count} sessions may go on for {grace} s.",
            count=len(self.sessions),
            grace=grace,
        )
        ending = self._reactor.callLater(grace, self._end_all)
        self._drained = Deferred()
        longest = grace + self._config.proxy.stall_timeout + LAST_WORDS_TIME
        self._drained.addTimeout(longest, self._reactor, self._give_up)
        await self._drained
        if ending.active():
            ending.cancel()

    def _end_all(self) -> None:
        for session in self.sessions:
            session.inputs.end(Refusal(CloseReason.DRAINING))

    def _give_up(self, result: object, timeout: float) -> None:
        """Somebody takes what was written to it, but so slowly that it would never end."""
        self.log.warn("{count} sessions are left when draining ends.", count=len(self.sessions))

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
            for port in self.ports:
                maybeDeferred(port.stopListening).addErrback(self._log_failure)
        cause = failure.value
        self.started.errback(cause.subFailure if isinstance(cause, FirstError) else failure)

    def _log_failure(self, failure: Failure) -> None:
        self.log.failure("While stopping", failure)

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
        if self._drained is not None and not self._drained.called and not self.sessions:
            self._drained.callback(None)

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

    def _read_keys(self) -> tuple[bytes, dict[str, bytes]]:
        config = self._config
        with _naming("proxy.secret_file", config.secret_path):
            secret = read_secret(config.secret_path, self._entropy)
        keys = {}
        for index, server in enumerate(config.servers):
            if server.key_file:
                file = config.resolve(server.key_file)
                with _naming(f"servers[{index}].key_file", file):
                    keys[server.id] = read_key_file(file)
        return secret, keys

    def _read_ticket_keys(self) -> Mapping[str, tuple[str, VerifyingKey]]:
        keys = {}
        for index, key in enumerate(self._config.auth.ticket_keys):
            file = self._config.resolve(key.file)
            with _naming(f"auth.ticket_keys[{index}].file", file):
                keys[key.id] = key.algorithm, read_ticket_key(file, key.algorithm)
        return keys

    def _build_portal(self, checkers: Iterable[ICredentialsChecker]) -> Portal:
        config = self._config
        auth = config.auth
        if config.dialect.client == "plain":
            auth = auth.model_copy(update={"guests": True})  # a client can be nothing else
        ticket_keys = self._read_ticket_keys()
        with _naming("auth.password_file", config.resolve(auth.password_file)):
            return build_portal(
                auth,
                self._reactor,
                self._hashing.run,
                folder=config.folder,
                ticket_keys=ticket_keys,
                extra_checkers=checkers,
            )

    def _open_farm(self, key_for: Callable[[str], bytes]) -> GameFarm:
        config = self._config
        host = self._host
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


@contextmanager
def _naming(place: str = "", *file: Path) -> Iterator[None]:
    """Say at which place of the configuration something, or which file, is named that cannot be used."""
    try:
        yield
    except CredentialsError as error:  # it says so itself
        raise ConfigurationError(str(error)) from error
    except (KeyFileError, PasswordFileError, PlaneUnavailable) as error:
        raise ConfigurationError(f"{place}: {' '.join(map(str, (*file, error)))}") from error

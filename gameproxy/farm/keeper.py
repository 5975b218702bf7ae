"""The game servers that this farm starts: their starts, their ends, and what is done about them in between."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from gameproxy.config import GameConfig
from gameproxy.farm import registry, restoring
from gameproxy.farm.processes import Processes, ProcessName
from gameproxy.farm.registry import StartedServer
from gameproxy.farm.starter import Launch
from gameproxy.farm.store import FarmStore, told_by_store
from gameproxy.interfaces import Entropy
from gameproxy.sites import KEEPER_LATE_START, LATE, Disturbs, never

HEARTBEAT_LIFE: Final = 15.0
"""Seconds for which a heartbeat may stand still before its game server is lost."""
LOST_LIFE: Final = 60.0
"""Seconds for which a heartbeat may stand still before a game server without sessions is ended, to be replaced."""
UNSEEN_LIFE: Final = 300.0
"""Seconds after which a lost game server whose process cannot be looked up from here counts as ended."""
STOP_GRACE: Final = 30.0
START_TIMEOUT: Final = 60.0
IDLE: Final = 600.0
"""The configuration's defaults, for game servers of a game that it no longer names."""


class Starter(Protocol):
    """What starts processes of game servers."""

    def start(self, server: str, game: GameConfig, on_exit: Callable[[], None]) -> Launch:
        """Start one, which waits.

        :param on_exit: called when its process has ended.
        :raises OSError: it cannot be started.
        """
        ...

    def clean_up(self, server: str) -> None:
        """It has ended, whoever started it: remove what only it needed."""
        ...


class Standstill:
    """Measures for how long values have not changed, by the time in which they could be read."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Hashable, float]] = {}
        self.moved: list[str] = []
        """The values that changed between the last two looks."""

    def observe(self, values: Mapping[str, Hashable], elapsed: float) -> dict[str, float]:
        """Look at the values now.

        :param elapsed: seconds since the last look that count.
        :return: for how long each value has stood still.
        """
        seen, self._seen = self._seen, {}
        self.moved = []
        for name, value in values.items():
            last, stood = seen.get(name, (value, 0.0))
            if last == value:
                self._seen[name] = (value, stood + elapsed if name in seen else 0.0)
            else:
                self._seen[name] = (value, 0.0)
                self.moved.append(name)
        return {name: stood for name, (_, stood) in self._seen.items()}


class ServerKeeper:
    """Starts, watches and stops game servers.

    :param proxy: this proxy's id; it looks after the servers whose rows name it.
    :param on_change: called with a game when one of its servers came, went, or failed to start.
    :param disturbs: asked at its site.
    """

    _log = Logger()

    def __init__(
        self,
        proxy: str,
        store: FarmStore,
        starter: Starter,
        processes: Processes,
        reactor: Any,
        entropy: Entropy,
        on_change: Callable[[str], None],
        disturbs: Disturbs = never,
    ) -> None:
        self.proxy = proxy
        self.games: Mapping[str, GameConfig] = {}
        """The games of the configuration, by name."""
        self._store = store
        self._starter = starter
        self._processes = processes
        self._reactor = reactor
        self._entropy = entropy
        self._on_change = on_change
        self._disturbs = disturbs
        self._is_closed = False
        self._heartbeats = Standstill()
        self._idle = Standstill()
        self._kills: dict[str, IDelayedCall] = {}
        self._closing: set[str] = set()
        """The servers whose rows are being closed: once, however long the database does not take it."""
        self._seen: dict[str, ProcessName] = {}
        """The processes of servers that this proxy knows to have run: of those that it never saw running another may
        have the pid since."""
        self._living: Sequence[StartedServer] = ()
        """The servers that are not closed, of all proxies, as last seen."""
        self._young: dict[str, StartedServer] = {}
        """The servers that were started here and have not been seen yet, with their processes."""
        self._launches: dict[str, Launch] = {}
        """Those of the servers that do not run yet."""
        self._warm: dict[str, int] = {}

    def living(self) -> list[StartedServer]:
        """The servers that are not closed, of all proxies, as far as they are known. May be called in any thread."""
        return [*self._living, *list(self._young.values())]

    def know(self, servers: Sequence[StartedServer]) -> None:
        """Remember the servers before the first look: the database may be lost sooner."""
        self._living = servers

    def start(self, server: str, game: GameConfig) -> None:
        """Start the game server for which there is a row in state ``starting``."""
        if self._disturbs(KEEPER_LATE_START):
            self._reactor.callLater(LATE, self._start, server, game)
        else:
            self._start(server, game)

    def _start(self, server: str, game: GameConfig) -> None:
        if self._is_closed:
            return
        try:
            launch = self._starter.start(server, game, partial(self._ended, server, game.name))
        except OSError as error:
            self._log.error(
                "game server {server} cannot be started: {error}", server=server, error=error
            )
            self._ended(server, game.name)
            return
        except Exception:
            self._log.failure("game server {server} cannot be started", server=server)
            self._ended(server, game.name)
            return
        process = self._seen[server] = launch.process
        self._log.info(
            "game server {server} starts as process {pid}", server=server, pid=process.pid
        )
        started = self._young[server] = StartedServer(
            server,
            game.name,
            "starting",
            host=None,
            port=None,
            capacity=game.capacity,
            taken=0,
            connections_added=0,
            proxy=self.proxy,
            heartbeat_at=None,
            started_at=self._reactor.seconds(),
            process=process,
        )
        recorded = self._store.must(
            lambda cursor: restoring.record_process(cursor, self.proxy, started),
            "recording a game server's process",
        )
        # One of which the farm does not know which process it is could hang, and nobody would ever end it: so it runs
        # when that is written, or never.
        self._launches[server] = launch
        recorded.addErrback(lambda _: False).addCallback(partial(self._answer, server))

    def _answer(self, server: str, may_run: bool) -> None:
        launch = self._launches.pop(server, None)
        if launch is not None:
            launch.answer(may_run)

    def stop(self, server: str) -> Deferred[bool]:
        """Ask a started game server to end, and make it after its grace.

        :return: fires with whether there is such a server; fails with StoreUnavailable.
        """
        return self._store.write(partial(self._prepare_stop, server)).addCallback(self._stop)

    def inspect(
        self, servers: Sequence[StartedServer], ended: Collection[ProcessName], elapsed: float
    ) -> None:
        """See what is to be done about the servers.

        :param ended: processes that have certainly ended.
        :param elapsed: seconds since the last look in which the database could be read.
        """
        self._warm = {}
        for server in servers:
            if server.state in ("starting", "ready"):
                self._warm[server.game] = self._warm.get(server.game, 0) + 1
        mine = [server for server in servers if server.proxy == self.proxy]
        self._living = servers
        living = {server.id for server in servers}
        named = {server.id for server in servers if server.process is not None}
        self._young = {name: s for name, s in self._young.items() if name not in named}
        self._seen = {name: process for name, process in self._seen.items() if name in living}
        self._seen |= {
            s.id: s.process for s in mine if s.process is not None and s.process not in ended
        }
        stood = self._heartbeats.observe({s.id: s.heartbeat_at for s in mine}, elapsed)
        idle = self._idle.observe(
            {s.id: (s.taken == 0, s.connections_added) for s in mine}, elapsed
        )
        for server in mine:
            if server.process in ended:
                self._ended(server.id, server.game)
            elif server.state == "starting":
                self._inspect_start(server, stood[server.id])
            else:
                self._inspect_heartbeat(server, stood[server.id])
                if server.taken == 0:
                    self._inspect_idle(server, idle[server.id], stood[server.id])

    def count_warm(self, game: str) -> int:
        """How many servers of a game were ready or starting when last seen, at all proxies."""
        return self._warm.get(game, 0)

    def close(self) -> None:
        """The proxy ends: the game servers that run go on."""
        self._is_closed = True
        for server in list(self._launches):
            self._answer(server, may_run=False)
        for kill in self._kills.values():
            kill.cancel()
        self._kills.clear()

    def _inspect_start(self, server: StartedServer, stood: float) -> None:
        game = self.games.get(server.game)
        timeout = game.start_timeout if game is not None else START_TIMEOUT
        now = self._reactor.seconds()
        # The clock may have been set back since, and the row edited: then it counts since when this proxy knows it.
        if max(stood, now - (server.started_at or now)) < timeout:
            return
        self._log.warn(
            "game server {server} was not ready after {timeout} s",
            server=server.id,
            timeout=timeout,
        )

        chance = self._chance()

        def failed(late: bool) -> None:
            if late:
                self._stop(server)
                self._on_change(server.game)

        done = self._store.write(
            lambda cursor: registry.fail_start(cursor, server.id, server.game, now, chance)
        )
        done.addCallbacks(failed, told_by_store)

    def _inspect_heartbeat(self, server: StartedServer, stood: float) -> None:
        if server.state == "ready" and stood >= HEARTBEAT_LIFE:
            self._log.warn("game server {server} gives no sign of life", server=server.id)
            self._set_state(server, "ready", "lost")
        elif server.state == "lost" and server.id in self._heartbeats.moved:
            self._log.info("game server {server} is back", server=server.id)
            self._set_state(server, "lost", "ready")
        elif server.state != "ready" and stood >= UNSEEN_LIFE and self._is_unseen(server):
            self._ended(server.id, server.game)

    def _is_unseen(self, server: StartedServer) -> bool:
        """Whether its process cannot be looked up from here, as after the restart of a container."""
        process = server.process
        return process is not None and (
            process.started is None or process.place != self._processes.me().place
        )

    def _set_state(self, server: StartedServer, old: str, new: str) -> None:
        done = self._store.write(lambda cursor: registry.set_state(cursor, server.id, old, new))
        done.addCallbacks(lambda _: self._on_change(server.game), told_by_store)

    def _inspect_idle(self, server: StartedServer, idle: float, stood: float) -> None:
        game = self.games.get(server.game)
        hangs = server.state == "lost" and stood >= LOST_LIFE and not self._is_unseen(server)
        patience = game.stop_when_idle if game is not None else IDLE
        if not (hangs or idle >= patience) or server.id in self._kills:
            return
        min_ready = game.min_ready if game is not None else 0

        def retired(done: bool) -> None:
            if done:
                self._log.info("game server {server} is idle or hangs, and stops", server=server.id)
                self._stop(server)

        done = self._store.write(
            lambda cursor: registry.retire_server(cursor, server.id, server.game, min_ready)
        )
        done.addCallbacks(retired, told_by_store)

    def _prepare_stop(self, name: str, cursor: sqlite3.Cursor) -> StartedServer | None:
        servers = registry.started_servers(cursor)
        server = next((server for server in servers if server.id == name), None)
        if server is not None:
            registry.set_state(cursor, name, server.state, "draining")
        return server

    def _stop(self, server: StartedServer | None) -> bool:
        if server is None:
            return False
        process = server.process or self._seen.get(server.id)
        if process is None:
            # Nobody knows its process, if there is one.
            self._ended(server.id, server.game)
            return True
        game = self.games.get(server.game)
        grace = game.stop_grace if game is not None else STOP_GRACE
        self._processes.signal(process, signal.SIGTERM)
        if server.id not in self._kills:
            self._kills[server.id] = self._reactor.callLater(grace, self._kill, server.id, process)
        return True

    def _kill(self, server: str, process: ProcessName) -> None:
        del self._kills[server]
        self._log.warn("game server {server} did not stop when asked: killing it", server=server)
        self._processes.signal(process, signal.SIGKILL)

    def _ended(self, server: str, game: str) -> None:
        if server in self._closing:
            return
        self._closing.add(server)
        self._young.pop(server, None)
        self._end_group(server)
        now, chance = self._reactor.seconds(), self._chance()
        done = self._must(
            lambda cursor: registry.close_server(cursor, server, now, chance),
            "closing a game server",
        )
        done.addCallback(lambda _: self._row_closed(server, game))
        try:
            self._starter.clean_up(server)
        except OSError as error:
            self._log.error(
                "what game server {server} leaves cannot be removed: {error}",
                server=server,
                error=error,
            )

    def _row_closed(self, server: str, game: str) -> None:
        self._closing.discard(server)
        self._on_change(game)

    def _end_group(self, server: str) -> None:
        """What is left of its process group has what remains of its grace when it was asked to stop, else none."""
        process = self._seen.pop(server, None)
        kill = self._kills.get(server)
        if kill is None:
            if process is not None:
                self._processes.signal(process, signal.SIGKILL)
        elif process is None or not self._processes.signal(process, 0):
            kill.cancel()
            del self._kills[server]

    def _chance(self) -> float:
        return int.from_bytes(self._entropy(2), "big") / 2**16

    def _must(self, operation: Callable[[sqlite3.Cursor], None], name: str) -> Deferred[None]:
        return self._store.must(operation, name).addErrback(lambda failure: None)

"""What must hold in a simulated world: after each event, and when all is at rest."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import ILogObserver
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy import client_side
from gameproxy.draining import LAST_WORDS_TIME
from gameproxy.farm.placement import ANSWER_TIMEOUT
from gameproxy.session import Session
from gameproxy.simulation.kernel import MICROSECONDS

if TYPE_CHECKING:
    from gameproxy.simulation.machines import Process
    from gameproxy.simulation.sockets import SimSocket
    from gameproxy.simulation.world import Simulation

BUFFER_MAX: Final = 3 * 65_536
"""Bytes that a proxy may keep for one connection: those at which a transport says stop, one read more, and what came
early."""
EARLY_MAX: Final = client_side.EARLY_MAX + 65_536
"""Bytes that a proxy may keep of what a client sent early: the limit, and one read more."""
SLACK: Final = 1.0
"""Seconds by which a session may be late in leaving a state."""
TIMERS_AT_REST: Final = 4
"""Calls to come of a proxy without sessions: its upkeep's."""


class Watch:
    """Looks at one session or one connection after each event, all in turn.

    :ivar look: looks at the next one.
    """

    def __init__(self, world: Simulation) -> None:
        self._world = world
        self._since: dict[str, tuple[str, int]] = {}
        self._progress: dict[str, tuple[int, int]] = {}
        config = world.config
        selection = config.selection
        auth = config.auth.timeout
        attempt = selection.connect_timeout + selection.handshake_timeout
        ending = config.proxy.stall_timeout + LAST_WORDS_TIME
        # It is noticed a quarter of the time late; when a relay ends just before, for another reason, once more.
        self._longest_stall = (2 * 1.25 * config.proxy.stall_timeout + SLACK) * MICROSECONDS
        self._longest = {
            "expecting": auth,
            "authenticating": auth,
            "selecting": max(selection.queue_timeout, ANSWER_TIMEOUT) + ANSWER_TIMEOUT,
            "connecting": attempt,
            "closing": ending,
        }
        self.look: Callable[[], None] = self._in_turn().__next__

    def _in_turn(self) -> Iterator[None]:
        """Look at all again and again, and pause after each."""
        while True:
            for proxy in self._world.proxies:
                process = proxy.process
                for session in proxy.service.sessions:
                    self._look_at_session(process, session)
                    yield
                for socket in list(process.sockets.values()):
                    self._look_at_socket(socket)
                    yield
            yield

    def _look_at_session(self, process: Process, session: Session) -> None:
        if session.state == "closed" or not process.alive:
            self._since.pop(session.id, None)
            return
        early = len(getattr(session._client, "_early", b""))
        if early > EARLY_MAX:
            self._world.violated(f"{early} bytes of a client are kept that came early")
        longest = self._longest.get(session.state)
        if longest is None:
            self._since.pop(session.id, None)
            return
        state, now = session.state, self._world.kernel.now
        if state == "connecting" and session.slot is not None:
            state = f"connecting to {session.slot.server}"  # an attempt may follow another between two looks
        before, since = self._since.get(session.id, (state, now))
        if before != state:
            since = now
        since = max(since, process.runs_since)
        self._since[session.id] = state, since
        if now - since > (longest + SLACK) * MICROSECONDS and not process.is_frozen:
            seconds = (now - since) / MICROSECONDS
            self._world.violated(f"a session is {session.state} for {seconds:.1f} s")

    def _look_at_socket(self, socket: SimSocket) -> None:
        # A transport asks to write as long as something waits.
        if socket.writer is None:
            self._progress.pop(socket.name, None)
            return
        owner = socket.owner
        size = len(getattr(owner, "dataBuffer", b"")) + getattr(owner, "_tempDataLen", 0)
        if size > BUFFER_MAX:
            self._world.violated(f"{size} bytes wait for a connection")
        if size and socket.state == "connected" and _is_owed_progress(owner, size):
            self._look_for_progress(socket)
        else:
            self._progress.pop(socket.name, None)

    def _look_for_progress(self, socket: SimSocket) -> None:
        """Whether somebody takes what waits for him, or is let go of."""
        taken, now = socket.acknowledged, self._world.kernel.now
        before, since = self._progress.get(socket.name, (taken, now))
        if before != taken:
            since = now
        since = max(since, socket.process.runs_since)
        self._progress[socket.name] = taken, since
        if now - since > self._longest_stall and not socket.process.is_frozen:
            seconds = (now - since) / MICROSECONDS
            self._world.violated(f"nobody takes what waits for a connection, for {seconds:.1f} s")


def _is_owed_progress(transport: Any, size: int) -> bool:
    """Whether a peer has to take soon what waits: when the buffer is full, or has been and is not empty again, so that
    the other side is kept from sending; and when the connection is to end. Less may wait while a session goes on."""
    is_full: bool = transport.producerPaused or size > transport.bufferSize
    ends: bool = transport.disconnecting or transport._writeDisconnecting
    return is_full or ends


@implementer(ILogObserver)
class LogEar:
    """Hears the log: what production code logs as a failure is one.

    :param violated: of a world, which must not live on because it is heard of.
    """

    def __init__(self, violated: weakref.WeakMethod[Callable[[str], None]]) -> None:
        self._violated = violated

    def __call__(self, event: Mapping[str, Any]) -> None:
        failure, what = event.get("log_failure"), event.get("log_format")
        if "failure" in event:
            # Twisted's old way of logging: what is raised where a connection is accepted, for one.
            failure, what = event["failure"], event.get("why")
        violated = self._violated()
        if violated is not None and isinstance(failure, Failure):
            violated(f"{what or 'failed'}: {failure.getErrorMessage()}")


def connections_to(world: Simulation, server: str) -> int:
    """How many connections proxies have to a game server, or are making."""
    place = world.ledger.addresses[server]
    return sum(
        socket.remote == place and not socket.closed
        for proxy in world.proxies
        for socket in proxy.process.sockets.values()
    )


def left_over(world: Simulation) -> str | None:
    """What is there still that should not be when nobody plays; ``None``: nothing."""
    for proxy in world.proxies:
        for socket in proxy.process.sockets.values():
            if not socket.is_listening:
                return f"{proxy.process.name} has a connection left, which is {socket.state}"
        timers = proxy.reactor.getDelayedCalls()
        if len(timers) > TIMERS_AT_REST:
            names = ", ".join(sorted(getattr(t.func, "__name__", "call") for t in timers))
            return f"{proxy.process.name} has {len(timers)} calls to come: {names}"
        if proxy.service.early_bytes.kept:
            return f"{proxy.process.name} keeps room for what clients send early"
    for process in world.clients_machine.processes.values():
        if process.sockets:
            return f"{len(process.sockets)} connections of clients are left"
    for server, players in world.ledger.inside.items():
        if players:
            return f"{len(players)} players are left in game server {server}"
    return _left_in_tables(world)


def left_of_the_dead(world: Simulation) -> str | None:
    """What there is still of proxies that are dead for long, while others live; ``None``: nothing."""
    living = sum(proxy.process.alive for proxy in world.proxies)
    counts = world.execute(
        "SELECT (SELECT count(*) FROM proxies), (SELECT count(*) FROM game_servers WHERE state <> 'closed'"
        " AND origin = 'started' AND (proxy IS NULL OR proxy NOT IN (SELECT id FROM proxies)))"
    )
    ((proxies, orphans),) = counts
    if proxies != living:
        return f"{proxies} proxies are in the table, and {living} live"
    return f"nobody looks after {orphans} game servers" if orphans else None


def _left_in_tables(world: Simulation) -> str | None:
    connection = sqlite3.connect(world.config.database_path, isolation_level=None)
    try:
        slots = connection.execute("SELECT count(*) FROM slots").fetchone()[0]
        proxies = connection.execute("SELECT count(*) FROM proxies").fetchone()[0]
        wrong = connection.execute(
            "SELECT count(*) FROM game_servers WHERE reserved <> 0 OR connections <> 0"
            " OR connections_added - connections_removed <> 0"
        ).fetchone()[0]
        starting = connection.execute(
            "SELECT count(*) FROM game_servers WHERE state = 'starting' AND started_at < ?",
            (world.proxies[0].reactor.seconds() - _longest_start(world),),
        ).fetchone()[0]
        leaving = connection.execute(
            "SELECT count(*) FROM game_servers WHERE origin = 'started' AND state IN ('draining', 'lost')"
        ).fetchone()[0]
        rows = connection.execute(
            "SELECT id, pid FROM game_servers WHERE origin = 'started' AND state <> 'closed'"
        ).fetchall()
    finally:
        connection.close()
    if slots:
        return f"{slots} slots are left"
    if proxies != len(world.proxies):
        return f"{proxies} proxies are in the table, and {len(world.proxies)} run"
    if wrong:
        return f"{wrong} game servers have counts left"
    if starting:
        return f"{starting} game servers do not get ready, and are not ended"
    if leaving:
        return f"{leaving} game servers are to end, and go on"
    running = {
        pid for pid, process in world.farm_machine.processes.items() if pid in world.game_servers
    }
    for server, pid in rows:
        if pid not in running:
            return f"game server {server} has a row and no process"
    without_row = running - {pid for _, pid in rows} - world.replacement.unknown.keys()
    return f"{len(without_row)} game servers run without a row" if without_row else None


def _longest_start(world: Simulation) -> float:
    return max((game.start_timeout + game.stop_grace + 5 for game in world.config.games), default=0)

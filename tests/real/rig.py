"""A running proxy under attack: the rig of the tests of bad input.

The proxy runs in this process with real sockets and a real SQLite file, between streams that a test moves by hand.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from twisted.internet import reactor
from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ClientCreator
from twisted.logger import LogLevel, formatEvent, globalLogPublisher

from gameproxy.config import parse
from gameproxy.interfaces import SessionRecord
from gameproxy.service import GameProxy
from tests.real.streams import (
    CLOSE,
    ERROR,
    LONGEST_WAIT,
    SECRET,
    STATUS,
    WELCOME,
    GameServer,
    Script,
    Stream,
    auth,
    echo,
    message,
    promptly,
    until,
)

UPKEEP = {"Reaper._look"}
"""What the proxy may always have in its calendar."""


def open_sockets() -> int:
    """How many sockets this process has."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).startswith("socket:")
        except OSError:
            continue  # it was that of the directory itself
    return count


@dataclass
class Rig:
    """A running proxy, in a folder of its own, with the game server ``good`` of the game ``echo``.

    :param servers: more game servers: (id, game, script), or (id, game, port) where nobody follows a script.
    :param timeout: seconds for AUTH, for a dial and for the handshake. Long, so that what is to happen at once is not
        mistaken for what happens then.
    :param queue_timeout: seconds that a client waits for room.
    :param auth: more of the section ``[auth]``.
    :param proxy_settings: more of the section ``[proxy]``.
    :param good: whether there is the game server ``good``.
    :param more: more of the configuration: whole sections.
    :ivar records: sessions that are over.
    :ivar lines: what the proxy has logged, at any level: ``twistd`` shows them all.
    """

    folder: Path
    servers: list[tuple[str, str, Script | int]] = field(default_factory=list)
    format: str = "int32"
    guests: bool = True
    auth: str = ""
    timeout: float = 20.0
    queue_timeout: float = 20.0
    proxy_settings: str = ""
    dialect: str = "native"
    admission: str = "handshake"
    good: bool = True
    more: str = ""

    game_servers: dict[str, GameServer] = field(default_factory=dict)
    records: list[SessionRecord] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)
    faults: list[dict[str, Any]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        globalLogPublisher.addObserver(self._observe)
        # Another test's that has failed; this one's are to be counted alone.
        self._left_before = reactor.getDelayedCalls()
        (self.folder / "farm.secret").write_text(SECRET.hex())
        (self.folder / "farm.secret").chmod(0o600)
        listed = []
        good = [("good", "echo", echo)] if self.good else []
        for id, game, script in [*good, *self.servers]:
            if isinstance(script, int):
                port = script
            else:
                game_server = self.game_servers[id] = GameServer(id, script, self.format)
                await game_server.listen()
                port = game_server.port.getHost().port
            listed.append(
                f'[[servers]]\nid = "{id}"\ngame = "{game}"\nhost = "127.0.0.1"\n'
                f"port = {port}\ncapacity = 20\n"
            )
        config = parse(self._toml() + "\n".join(listed), self.folder)
        self._ends: DeferredQueue[SessionRecord] = DeferredQueue()
        self.proxy = GameProxy(
            config,
            reactor,
            endpoints=[TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")],
            on_session_end=self._ended,
            control=False,
        )
        self.proxy.startService()
        await self.proxy.started
        self.port: int = self.proxy.ports[0].getHost().port
        self._sockets = open_sockets()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if error is None:
                await nothing_left(self)
        finally:
            await self.proxy.stopService()
            for game_server in self.game_servers.values():
                for stream in game_server.streams:
                    if not stream.lost:
                        stream.reset()
                await game_server.port.stopListening()
            globalLogPublisher.removeObserver(self._observe)
        if error is None:
            assert not self.faults
            for line in self.lines:
                assert (formatEvent(line) or "").isprintable(), "something unescaped in the log"
            for game_server in self.game_servers.values():
                for fault in game_server.faults:
                    fault.raiseException()

    def _toml(self) -> str:
        return f"""
            [proxy]
            database = "sqlite:///farm.db"
            max_sessions = 200
            drain_grace = 0.05
            stall_timeout = 0.4
            {self.proxy_settings}
            [framing]
            format = "{self.format}"
            [dialect]
            client = "{self.dialect}"
            admission = "{self.admission}"
            [auth]
            timeout = {self.timeout}
            guests = {"true" if self.guests else "false"}
            {self.auth}
            [selection]
            connect_timeout = {self.timeout}
            handshake_timeout = {self.timeout}
            queue_timeout = {self.queue_timeout}
            {self.more}
        """

    def _observe(self, event: dict[str, Any]) -> None:
        if str(event.get("log_namespace")).startswith("gameproxy"):
            self.lines.append(event)
        if event["log_level"] >= LogLevel.critical:
            self.faults.append(event)

    def _ended(self, record: SessionRecord) -> None:
        self.records.append(record)
        self._ends.put(record)

    async def end(self) -> SessionRecord:
        """The next session that is over, or was and was not yet asked for."""
        return await self._ends.get().addTimeout(LONGEST_WAIT, reactor)

    # Clients

    async def connect(self, kind: type[Stream] = Stream, door: int = 0) -> Stream:
        """A client that has said nothing yet.

        :param door: at which of the proxy's ports.
        """
        creator = ClientCreator(reactor, kind, self.format)
        port = self.proxy.ports[door].getHost().port
        stream: Stream = await creator.connectTCP("127.0.0.1", port)
        return stream

    async def join(
        self, game: str = "echo", kind: type[Stream] = Stream, **fields: object
    ) -> Stream:
        """A client that relays."""
        stream = await self.connect(kind)
        await self.enter(stream, game=game, **fields)
        return stream

    async def enter(self, stream: Stream, game: str = "echo", **fields: object) -> None:
        """Have a client that has said nothing yet relay."""
        stream.send(auth(game=game, **fields))
        assert set(await stream.message(WELCOME)) == {"session", "player", "server", "game"}

    async def refused(self, client: Stream, code: str) -> dict[str, Any]:
        """See that a client is told ERROR with this code as the last thing, and the session ends with it.

        :return: the JSON of ERROR.
        """
        with promptly():
            error = await self._told(client)
            assert error["code"] == code, error
            await self.over(code)
        assert isinstance(error["message"], str) and error["message"]
        assert "retry_after" not in error or error["retry_after"] > 0
        return error

    async def _told(self, client: Stream) -> dict[str, Any]:
        """What a client is told in ERROR, as the last thing."""
        bodies = await client.rest()
        assert not client.received, "half a frame"
        assert [body[0] for body in bodies[:-1]] == [STATUS] * (len(bodies) - 1), bodies
        assert bodies, "no ERROR"
        assert bodies[-1][0] == ERROR, bodies
        assert len(bodies[-1]) <= 4096
        return dict(json.loads(bodies[-1][1:]))

    async def closed(self, stream: Stream, code: str) -> list[bytes]:
        """See that a relaying side is told CLOSE with this code as the last thing.

        :return: the frames before it.
        """
        *bodies, last = await stream.rest()
        assert not stream.received, "half a frame"
        assert last[0] == CLOSE, last
        told = json.loads(last[1:])
        assert told["code"] == code, told
        assert isinstance(told["message"], str)
        return bodies

    async def leave(self, client: Stream) -> None:
        """End a session that relays, as a client should."""
        client.send(message(CLOSE, code="left", message="bye"))
        assert await client.rest() == []
        await self.over("left")

    async def over(self, code: str) -> SessionRecord:
        """See that the next session that is over ends with this code."""
        record = await self.end()
        assert record.reason.value == code
        return record

    @asynccontextmanager
    async def canary(self, lines: int = 1) -> AsyncIterator[Stream]:
        """A session that relays, and must not notice what is done to others meanwhile.

        :param lines: how many lines may be logged of that.
        """
        canary = await self.join(name="canary")
        await canary.echo(b"\x10before")
        logged = len(self.lines)
        yield canary
        await canary.echo(b"\x10after")
        await self._settled(1)
        assert len(self.lines) - logged <= lines, [_text(line) for line in self.lines[logged:]]
        assert not canary.over
        await self.leave(canary)

    async def _settled(self, sessions: int) -> None:
        await until(lambda: leftovers(self, sessions))

    # The farm

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the farm's database.

        :raises sqlite3.Error: there is none, or it is none.
        """
        database = sqlite3.connect(f"file:{self.folder / 'farm.db'}?mode=rw", uri=True, timeout=5)
        try:
            rows = database.execute(sql, values).fetchall()
            database.commit()
            return rows
        finally:
            database.close()


def _text(event: dict[str, Any]) -> str:
    return f"{event['log_level'].name}: {event.get('log_format')}"


def leftovers(rig: Rig, sessions: int = 0) -> list[str]:
    """What is left in the proxy and the farm beyond so many sessions that relay."""
    found = []
    if len(rig.proxy.sessions) != sessions:
        states = [session.state for session in rig.proxy.sessions]
        found.append(f"sessions {states}, not {sessions}")
    try:
        slots = rig.query("SELECT session, state, server FROM slots")
    except sqlite3.Error as error:
        return [f"the database: {error}"]
    if len(slots) != sessions:
        found.append(f"slots {slots}")
    reserved, connections, added, removed = rig.query(
        "SELECT sum(reserved), sum(connections), sum(connections_added), sum(connections_removed)"
        " FROM game_servers"
    )[0]
    if (reserved, connections, added - removed) != (0, sessions, sessions):
        found.append(f"reserved {reserved}, connections {connections} = {added} - {removed}")
    if sessions == 0:
        if open_sockets() > rig._sockets:
            found.append(f"{open_sockets() - rig._sockets} sockets")
        calls = [call for call in reactor.getDelayedCalls() if call not in rig._left_before]
        names = [getattr(call.func, "__qualname__", repr(call.func)) for call in calls]
        found += [f"delayed call {name}" for name in names if name not in UPKEEP]
    return found


async def nothing_left(rig: Rig) -> None:
    """See that nothing is left of any session: in the proxy, its calendar, its sockets, and the farm."""
    await until(lambda: leftovers(rig))

"""A game server on a reactor in memory, and a proxy's connections to it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactor
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.framing import FORMATS, Framer
from gameproxy.gameserver import Game, GameServerService, Place, Player
from gameproxy.gameserver.server import GameServer
from gameproxy.handshake import ProxyHandshake
from gameproxy.messages import Admit, FrameType, Notice, decode_notice
from gameproxy.testing import seeded_entropy
from tests.fake_transport import FakeTransport
from tests.inline_threads import InlineReactor

KEY = bytes(range(32))
INT32 = FORMATS["int32"]
ADMIT = Admit(
    session="5e55",
    player="ann",
    address="203.0.113.5",
    game="echo",
    server="s1",
    nonce="",
    proxy_nonce="ab" * 16,
    properties='{"team":1}',
)


class Port:
    """A listening port in memory, which notes that it is closed."""

    def __init__(self, port: Any) -> None:
        self._port = port
        self.is_closed = False

    def getHost(self) -> Any:
        return self._port.getHost()

    def stopListening(self) -> None:
        self.is_closed = True


class GameReactor(InlineReactor, MemoryReactor):
    """A clock, threads that do all at once, and listening ports in memory.

    :ivar ports: those, since they were last forgotten.
    """

    def __init__(self) -> None:
        MemoryReactor.__init__(self)
        InlineReactor.__init__(self)
        self.ports: list[Port] = []

    def listenTCP(self, *arguments: Any, **more: Any) -> Any:
        self.ports.append(Port(super().listenTCP(*arguments, **more)))
        return self.ports[-1]


class Notes(Game):
    """A game that notes what happens."""

    def __init__(self) -> None:
        self.happened: list[tuple[str, Any]] = []

    def joined(self, player: Player) -> object:
        self.happened.append(("joined", player.name))
        return None

    def received(self, player: Player, body: bytes) -> object:
        self.happened.append(("received", body))
        return None

    def left(self, player: Player) -> object:
        self.happened.append(("left", player.name))
        return None


class Proxy:
    """A proxy's connection to a game server, and what comes over it."""

    def __init__(
        self, reactor: GameReactor, admit: Admit = ADMIT, key: bytes = KEY, port: int = 0
    ) -> None:
        self.handshake = ProxyHandshake(admit, key)
        self.transport = FakeTransport()
        self.framer = Framer(INT32, 4_000_000)
        factory = reactor.tcpServers[port][1]
        self.transport.connect(factory.buildProtocol(None))
        self._read = 0

    def frames(self) -> list[bytes]:
        """What has come since the last time."""
        written = self.transport.written
        self.framer.feed(written[self._read :])
        self._read = len(written)
        return list(self.framer.frames())

    def send(self, *bodies: bytes) -> None:
        """Send frames, in one piece."""
        self.transport.deliver(b"".join(INT32.encode(body) for body in bodies))

    def ask(self) -> None:
        """Answer CHALLENGE with ADMIT."""
        (challenge,) = self.frames()
        answer = self.handshake.receive(challenge)
        assert isinstance(answer, bytes)
        self.send(answer)

    def admit(self) -> bytes | Notice | None:
        """Go through the handshake; as the proxy's side says what comes of it."""
        self.ask()
        first, *self.after = self.frames()
        return self.handshake.receive(first)

    def notice(self) -> tuple[int, str]:
        """The type and the code of the only frame that has come."""
        (frame,) = self.frames()
        return frame[0], decode_notice(frame[1:]).code

    @property
    def is_ended(self) -> bool:
        """Whether the game server has ended the connection, and we got all that it had sent."""
        self.transport.take()
        return self.transport.stream_ended or self.transport.how is not None

    def close(self) -> None:
        """End our side, too, when all has been taken."""
        self.transport.take()
        self.transport.end()
        self.transport.take()


class GameServerTestCase(SynchronousTestCase):
    """Has a game server that listens.

    :ivar logged: what was logged as a warning or worse.
    """

    def setUp(self) -> None:
        self.logged: list[str] = []
        globalLogPublisher.addObserver(self._observe)
        self.addCleanup(globalLogPublisher.removeObserver, self._observe)
        self.reactor = GameReactor()
        self.game: Any = Notes()
        self.serve()

    def _observe(self, event: Any) -> None:
        if event["log_level"] >= LogLevel.warn:
            self.logged.append(formatEvent(event))

    def serve(self, **arguments: Any) -> None:
        """Have a new game server; arguments are of the place or of the game server."""
        self.make(**arguments)
        self.service.startService()

    def make(self, **arguments: Any) -> None:
        """As :meth:`serve`, but it is not started yet."""
        place = Place("s1", KEY, "192.0.2.5", 5000, 2)
        for name in ("capacity", "farm"):
            if name in arguments:
                place = replace(place, **{name: arguments.pop(name)})
        self.reactor.tcpServers.clear()
        self.reactor.ports.clear()
        self.service = GameServerService(
            self.game, place, self.reactor, entropy=seeded_entropy(), **arguments
        )
        self.server: GameServer = self.service.server

    def connect(self, session: str = "5e55", player: str = "ann", **arguments: Any) -> Proxy:
        """A proxy connects for a session."""
        return Proxy(self.reactor, replace(ADMIT, session=session, player=player), **arguments)

    def let_in(self, session: str = "5e55", player: str = "ann") -> tuple[Proxy, Player]:
        """A player comes in."""
        proxy = self.connect(session, player)
        self.assertIsNone(proxy.admit())
        return proxy, self.server.players[session]


class FarmDatabase:
    """The farm's database, as much of it as a game server sees."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def make(self, state: str = "starting") -> None:
        """Make it, with the game server's row."""
        self.sql("CREATE TABLE game_servers (id, state, host, port, heartbeat_at, reported_load)")
        self.sql(f"INSERT INTO game_servers (id, state) VALUES ('s1', '{state}')")

    def sql(self, statement: str) -> list[Any]:
        """Do a statement."""
        database = sqlite3.connect(self.file, isolation_level=None)
        try:
            return database.execute(statement).fetchall()
        finally:
            database.close()

    def row(self, columns: str = "state, host, port, heartbeat_at") -> Any:
        """The game server's row."""
        (row,) = self.sql(f"SELECT {columns} FROM game_servers")
        return row


CLOSE = FrameType.CLOSE
REFUSED = FrameType.REFUSED

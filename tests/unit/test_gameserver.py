"""gameproxy.gameserver, and gameproxy.arena.echo"""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.echo import Echo
from gameproxy.framing import FORMATS, Framer
from gameproxy.gameserver import Game, GameServer, Place, Player
from gameproxy.handshake import ProxyHandshake
from gameproxy.messages import (
    Admit,
    FrameType,
    Notice,
    decode_kick,
    decode_notice,
)
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


class GameReactor(InlineReactor, MemoryReactor):
    """A clock, threads that do all at once, and listening ports in memory.

    :ivar stopped: whether it was asked to stop.
    """

    def __init__(self) -> None:
        MemoryReactor.__init__(self)
        InlineReactor.__init__(self)
        self.stopped = False

    def stop(self) -> None:
        self.stopped = True


class Notes(Game):
    """A game that notes what happens."""

    def __init__(self) -> None:
        self.happened: list[tuple[str, Any]] = []

    def joined(self, player: Player) -> None:
        self.happened.append(("joined", player.name))

    def received(self, player: Player, body: bytes) -> None:
        self.happened.append(("received", body))

    def left(self, player: Player) -> None:
        self.happened.append(("left", player.name))


class Proxy:
    """A proxy's connection to a game server, and what comes over it."""

    def __init__(self, server: GameServer, admit: Admit = ADMIT, key: bytes = KEY) -> None:
        self.handshake = ProxyHandshake(admit, key)
        self.transport = FakeTransport()
        self.framer = Framer(server.format, 10_000)
        factory = server.reactor.tcpServers[0][1]  # type: ignore[attr-defined]  # a MemoryReactor
        self.transport.connect(factory.buildProtocol(None))
        self._read = 0

    def frames(self) -> list[bytes]:
        """What has come since the last time."""
        written = self.transport.written
        self.framer.feed(written[self._read :])
        self._read = len(written)
        return list(self.framer.frames())

    def send(self, body: bytes) -> None:
        """Send a frame."""
        self.transport.deliver(INT32.encode(body))

    def admit(self) -> bytes | Notice | None:
        """Go through the handshake; as the proxy's side says what comes of it."""
        (challenge,) = self.frames()
        answer = self.handshake.receive(challenge)
        assert isinstance(answer, bytes)
        self.send(answer)
        (last,) = self.frames()
        return self.handshake.receive(last)


class GameServerTestCase(SynchronousTestCase):
    """Has a game server that listens."""

    def setUp(self) -> None:
        self.reactor = GameReactor()
        self.game = Notes()
        self.server = self.make()
        self.server.startService()

    def make(self, **place: Any) -> GameServer:
        """A game server that is not started yet."""
        where = replace(Place("s1", KEY, "192.0.2.5", 5000, 2), **place)
        return GameServer(self.game, where, self.reactor, entropy=seeded_entropy())

    def close(self, proxy: Proxy) -> None:
        """Let the connection go, as it goes when all is written."""
        proxy.transport.take()
        proxy.transport.reset()  # if it does not stand any more, this is nothing


class HandshakeTest(GameServerTestCase):
    """Who is let in"""

    def test_admitted(self) -> None:
        """Who proves to be the proxy is let in, and the game gets to know the player."""
        proxy = Proxy(self.server)
        self.assertIsNone(proxy.admit())
        (player,) = self.server.players.values()
        self.assertEqual(
            (player.session, player.name, player.address, player.properties),
            ("5e55", "ann", "203.0.113.5", {"team": 1}),
        )
        self.assertEqual(self.game.happened, [("joined", "ann")])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_wrong_key(self) -> None:
        """Who does not know the key is not let in; what it still sends is not listened to."""
        proxy = Proxy(self.server, key=bytes(32))
        (challenge,) = proxy.frames()
        proxy.send(proxy.handshake.receive(challenge))  # type: ignore[arg-type]  # it answers
        proxy.send(b"\x10hello")
        self.assertEqual(proxy.frames(), [])
        self.assertTrue(proxy.transport.disconnecting)
        self.assertEqual(self.game.happened, [])

    def test_bad_frame(self) -> None:
        """Garbage in place of ADMIT ends the connection."""
        proxy = Proxy(self.server)
        proxy.transport.deliver(b"\xff" * 10)
        proxy.transport.deliver(b"\xff" * 10)
        self.assertTrue(proxy.transport.disconnecting)

    def test_silent(self) -> None:
        """Who sends no ADMIT within 5 s is let go of."""
        proxy = Proxy(self.server)
        self.reactor.advance(4.9)
        self.assertFalse(proxy.transport.disconnecting)
        self.reactor.advance(0.1)
        self.assertTrue(proxy.transport.disconnecting)

    def test_gone_before_admit(self) -> None:
        """Who goes before ADMIT leaves nothing behind, and was never in the game."""
        proxy = Proxy(self.server)
        self.close(proxy)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.game.happened, [])

    def test_full(self) -> None:
        """Beyond its capacity it says that it is full; when one has left there is room again."""
        first = Proxy(self.server)
        first.admit()
        Proxy(self.server, replace(ADMIT, session="2")).admit()
        third = Proxy(self.server, replace(ADMIT, session="3"))
        answer = third.admit()
        assert isinstance(answer, Notice)
        self.assertEqual(answer.code, "full")
        self.assertTrue(third.transport.disconnecting)
        self.close(first)
        self.assertIsNone(Proxy(self.server, replace(ADMIT, session="4")).admit())

    def test_same_session(self) -> None:
        """A session that is in is not let in a second time."""
        Proxy(self.server).admit()
        again = Proxy(self.server)
        (challenge,) = again.frames()
        again.send(again.handshake.receive(challenge))  # type: ignore[arg-type]  # it answers
        self.assertEqual(again.frames(), [])
        self.assertTrue(again.transport.disconnecting)
        self.assertEqual(len(self.server.players), 1)


class PlayTest(GameServerTestCase):
    """What a player does, and what is done to it"""

    def setUp(self) -> None:
        super().setUp()
        self.proxy = Proxy(self.server)
        self.proxy.admit()
        (self.player,) = self.server.players.values()

    def test_frames(self) -> None:
        """Frames go to the game and to the player, in order; an empty one too."""
        self.proxy.send(b"\x10a")
        self.proxy.send(b"")
        self.assertEqual(self.game.happened[1:], [("received", b"\x10a"), ("received", b"")])
        self.player.send(b"\x11b")
        self.player.send_settings(b"s")
        self.assertEqual(self.proxy.frames(), [b"\x11b", b"\x03s"])

    def test_large_frames(self) -> None:
        """Once in, frames may be as large as the format has it, and no larger."""
        self.proxy.send(b"\x10" * 100_000)
        self.assertEqual(len(self.game.happened), 2)
        self.proxy.transport.deliver((INT32.max_frame + 1).to_bytes(4, "big"))
        self.assertTrue(self.proxy.transport.disconnecting)

    def test_client_leaves(self) -> None:
        """CLOSE ends the connection; what comes after it is not the game's. The game is told once that it left."""
        close = Notice("left", "bye").encode(FrameType.CLOSE)
        self.proxy.transport.deliver(INT32.encode(close) + INT32.encode(b"\x10late"))
        self.assertTrue(self.proxy.transport.disconnecting)
        self.player.send(b"\x10nobody hears")
        self.assertEqual(self.proxy.frames(), [])
        self.close(self.proxy)
        self.assertEqual(self.game.happened[1:], [("left", "ann")])
        self.assertEqual(self.server.players, {})

    def test_close(self) -> None:
        """The game can end a session; nothing is sent after CLOSE, and CLOSE not twice."""
        self.player.close("Game over.")
        self.player.close("Game over.")
        self.player.send(b"\x10late")
        (frame,) = self.proxy.frames()
        self.assertEqual(frame[0], FrameType.CLOSE)
        self.assertEqual(decode_notice(frame[1:]), Notice("left", "Game over."))
        self.assertTrue(self.proxy.transport.disconnecting)

    def test_kick(self) -> None:
        """The game can have a player kicked and banned: that is for the proxy to do."""
        self.player.kick("Cheater.", ban_for=60.0)
        (frame,) = self.proxy.frames()
        kick = decode_kick(frame[1:])
        self.assertEqual((frame[0], kick.message, kick.ban_for), (0x0B, "Cheater.", 60.0))
        self.assertFalse(self.proxy.transport.disconnecting)

    def test_no_own_frames(self) -> None:
        """Where all frames are the game's, none is taken for the proxy's, and none of the proxy's is sent."""
        self.server.own_frames = False
        close = Notice("left", "").encode(FrameType.CLOSE)
        self.proxy.send(close)
        self.assertEqual(self.game.happened[-1], ("received", close))
        self.player.send_settings(b"x")
        self.player.kick("Cheater.")
        self.player.close("Game over.")
        self.assertEqual(self.proxy.frames(), [])
        self.assertTrue(self.proxy.transport.disconnecting)

    def test_backpressure(self) -> None:
        """Whose buffer is full is not read from until it takes something."""
        self.player.send(bytes(200_000))
        self.assertFalse(self.proxy.transport.reading)
        self.proxy.transport.take()
        self.assertTrue(self.proxy.transport.reading)

    def test_echo(self) -> None:
        """The echo game sends each frame back."""
        Echo().received(self.player, b"\x10again")
        self.assertEqual(self.proxy.frames(), [b"\x10again"])

    def test_plain_game(self) -> None:
        """A game need not override anything."""
        game = Game()
        game.joined(self.player)
        game.received(self.player, b"")
        game.left(self.player)


class StopTest(GameServerTestCase):
    """Its end"""

    def test_players(self) -> None:
        """When it stops, players are told, and it waits until they are gone."""
        proxies = [Proxy(self.server, replace(ADMIT, session=f"{n}")) for n in range(2)]
        for proxy in proxies:
            proxy.admit()
        done = self.server.stopService()
        for proxy in proxies:
            self.assertNoResult(done)
            (frame,) = proxy.frames()
            self.assertEqual(decode_notice(frame[1:]).code, "draining")
            self.close(proxy)
        self.successResultOf(done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_player_who_stays(self) -> None:
        """It does not wait for ever; who goes later is no trouble."""
        proxy = Proxy(self.server)
        proxy.admit()
        done = self.server.stopService()
        self.reactor.advance(2.0)
        self.successResultOf(done)
        self.close(proxy)

    def test_nobody(self) -> None:
        """With nobody in, it stops at once; and who then still connects is turned away."""
        self.successResultOf(self.server.stopService())
        answer = Proxy(self.server).admit()
        assert isinstance(answer, Notice)
        self.assertEqual(answer.code, "draining")

    def test_not_started(self) -> None:
        """What was never started can be stopped, and listens nowhere."""
        server = self.make()
        self.assertEqual(server.port, 0)
        self.successResultOf(server.stopService())


class FarmTest(GameServerTestCase):
    """What it tells the farm"""

    def setUp(self) -> None:
        super().setUp()
        self.file = Path(self.mktemp()).absolute()
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.server = self.make(farm=str(self.file))

    def make_table(self, state: str = "starting") -> None:
        """The database, with the game server's row."""
        self.sql("CREATE TABLE game_servers (id, state, host, port, heartbeat_at)")
        self.sql(f"INSERT INTO game_servers VALUES ('s1', '{state}', NULL, NULL, 0)")

    def sql(self, statement: str) -> list[Any]:
        database = sqlite3.connect(self.file, isolation_level=None)
        try:
            return database.execute(statement).fetchall()
        finally:
            database.close()

    def row(self) -> Any:
        """Its row, without its id."""
        (row,) = self.sql("SELECT state, host, port, heartbeat_at FROM game_servers")
        return row

    def start(self) -> None:
        self.server.startService()
        self.reactor.settle()

    def test_life(self) -> None:
        """It announces itself when it listens, gives signs of life, and takes its leave."""
        self.make_table()
        self.start()
        now = self.reactor.seconds()
        self.assertEqual(self.row(), ("ready", "192.0.2.5", 5000, now))
        self.reactor.pass_time(5.0)
        self.assertEqual(self.row()[3], now + 5)
        done = self.server.stopService()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(self.row()[0], "draining")
        self.reactor.pass_time(10.0)
        self.assertEqual(self.row()[3], now + 5)

    def test_heartbeat_alone(self) -> None:
        """A sign of life changes nothing else: a state set by others stays."""
        self.make_table()
        self.start()
        self.sql("UPDATE game_servers SET state = 'lost'")
        self.reactor.pass_time(5.0)
        self.assertEqual(self.row()[0], "lost")

    def test_not_waited_for(self) -> None:
        """When the farm does not wait for it (it was too slow, say) it ends."""
        self.make_table("closed")
        self.start()
        self.assertTrue(self.reactor.stopped)
        self.assertEqual(self.row()[0], "closed")

    def test_trouble(self) -> None:
        """A database that cannot be written is tried again until it can, before and after it is announced; the
        players do not notice. A missing one is not made."""
        self.start()
        self.assertFalse(self.file.exists())
        self.make_table()
        self.reactor.pass_time(5.0)
        self.assertEqual(self.row()[0], "ready")
        self.sql("ALTER TABLE game_servers RENAME TO gone")
        self.reactor.pass_time(5.0)
        self.sql("ALTER TABLE gone RENAME TO game_servers")
        self.reactor.pass_time(5.0)
        self.assertEqual(self.row()[3], self.reactor.seconds())
        self.sql("DROP TABLE game_servers")
        done = self.server.stopService()
        self.reactor.settle()
        self.successResultOf(done)
        self.assertEqual(len(self.flushLoggedErrors(sqlite3.OperationalError)), 3)
        self.assertFalse(self.reactor.stopped)


class PlaceTest(SynchronousTestCase):
    """gameproxy.gameserver.Place"""

    def test_from_environment(self) -> None:
        """What a proxy gives to a game server that it starts is understood."""
        key = Path(self.mktemp())
        key.parent.mkdir(parents=True, exist_ok=True)
        key.write_text(KEY.hex())
        key.chmod(0o600)
        environment = {
            "GAMEPROXY_SERVER_ID": "s1",
            "GAMEPROXY_GAME": "echo",
            "GAMEPROXY_FARM": "sqlite:////var/farm.db",
            "GAMEPROXY_SECRET_FILE": str(key),
            "GAMEPROXY_HOST": "127.0.0.1",
            "GAMEPROXY_PORT": "0",
            "GAMEPROXY_CAPACITY": "16",
        }
        expected = Place("s1", KEY, "127.0.0.1", 0, 16, "/var/farm.db")
        self.assertEqual(Place.from_environment(environment), expected)
        del environment["GAMEPROXY_PORT"]
        self.assertRaises(KeyError, Place.from_environment, environment)

    def test_key_is_secret(self) -> None:
        """The key is not in the repr."""
        place = Place("s1", KEY, "127.0.0.1", 0, 16)
        self.assertNotIn(repr(KEY)[2:10], repr(place))

"""gameproxy.gameserver: who is let in, what players do and what is done to them, the end; and gameproxy.arena.echo"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.echo import Echo
from gameproxy.framing import FORMATS
from gameproxy.gameserver import Game, Place, Player, Refused
from gameproxy.messages import FrameType, Notice, decode_kick, decode_notice
from tests.game_server_fixture import CLOSE, INT32, KEY, REFUSED, GameServerTestCase, Notes


class HandshakeTest(GameServerTestCase):
    """Who is let in"""

    def test_admitted(self) -> None:
        """Who proves to be the proxy is let in, and the game gets to know the player."""
        _, player = self.let_in()
        self.assertEqual(
            (player.session, player.name, player.address, player.properties, player.data),
            ("5e55", "ann", "203.0.113.5", {"team": 1}, None),
        )
        self.assertEqual(repr(player), "<Player 'ann', session '5e55'>")
        self.assertEqual(self.game.happened, [("joined", "ann")])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_wrong_key(self) -> None:
        """Who does not know the key is not let in; what it still sends is not listened to."""
        proxy = self.connect(key=bytes(32))
        proxy.ask()
        proxy.send(b"\x10hello")
        self.assertEqual(proxy.frames(), [])
        self.assertTrue(proxy.is_ended)
        self.assertEqual(self.game.happened, [])
        self.assertEqual(self.logged, ["A proxy's connection is closed: the MAC of ADMIT is wrong"])

    def test_bad_frame(self) -> None:
        """Garbage in place of ADMIT ends the connection, and leaves nothing behind."""
        proxy = self.connect()
        proxy.transport.deliver(b"\xff" * 10)
        proxy.transport.deliver(b"\xff" * 10)
        self.assertTrue(proxy.is_ended)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_silent(self) -> None:
        """Who sends no ADMIT within 5 s is let go of."""
        proxy = self.connect()
        self.reactor.advance(4.9)
        self.assertFalse(proxy.is_ended)
        self.reactor.advance(0.1)
        self.assertTrue(proxy.is_ended)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_gone_before_admit(self) -> None:
        """Who goes before ADMIT leaves nothing behind, and was never in the game."""
        self.connect().close()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.game.happened, [])

    def test_full(self) -> None:
        """Beyond its capacity it says that it is full; when one has left there is room again."""
        first, _ = self.let_in("1")
        self.let_in("2")
        third = self.connect("3")
        third.ask()
        self.assertEqual(third.notice(), (REFUSED, "full"))
        self.assertTrue(third.is_ended)
        first.close()
        self.let_in("4")

    def test_same_session(self) -> None:
        """A session that is in is not let in a second time."""
        self.let_in()
        again = self.connect()
        again.ask()
        self.assertEqual(again.frames(), [])
        self.assertTrue(again.is_ended)
        self.assertEqual(len(self.server.players), 1)

    def test_smaller_capacity(self) -> None:
        """The game may have less room than the farm gave it, but not more."""
        self.server.capacity = 1
        self.let_in("1")
        second = self.connect("2")
        second.ask()
        self.assertEqual(second.notice(), (REFUSED, "full"))
        self.server.capacity = 2
        self.let_in("3")
        for wrong in (-1, 3):
            with self.assertRaises(ValueError):
                self.server.capacity = wrong
        self.assertEqual(self.server.capacity, 2)

    def test_large_before_admit(self) -> None:
        """Who has not proved to be the proxy cannot have more than 4096 bytes kept; or less, where the format says."""
        for format, size in ((INT32, 4097), (FORMATS["vim-arcade"], 1021)):
            self.serve(format=format)
            proxy = self.connect()
            proxy.transport.deliver(bytes(format.header_size - 2) + size.to_bytes(2, "big"))
            self.assertEqual(proxy.transport.how, "aborted")


class DoorTest(GameServerTestCase):
    """What a game has to say about who is let in"""

    def refuse(self, error: Exception) -> Any:
        """Have the game refuse, and say what the proxy was told."""

        class Door(Notes):
            def admitting(self, player: Player) -> object:
                raise error

        self.server.game = self.game = Door()
        proxy = self.connect()
        proxy.ask()
        (frame,) = proxy.frames()
        self.assertTrue(proxy.is_ended)
        proxy.close()
        self.assertEqual(self.game.happened, [])
        self.assertEqual(frame[0], FrameType.REFUSED)
        return decode_notice(frame[1:])

    def test_refused(self) -> None:
        """Whom the game refuses is told why, and takes no room."""
        for _ in range(3):
            notice = self.refuse(Refused("too_young", "Come back in a year."))
            self.assertEqual(notice, Notice("too_young", "Come back in a year."))
        self.assertEqual(self.logged, [])

    def test_failed(self) -> None:
        """Who comes in just when the game fails is refused, too, and learns nothing of the failure."""
        self.assertEqual(self.refuse(ZeroDivisionError("secret")).code, "internal")
        self.assertIn("ZeroDivisionError: secret", self.logged[0])

    def test_settings(self) -> None:
        """The game's settings are the first frame after ADMITTED, whatever else is sent at once."""

        class Settled(Notes):
            def settings(self, player: Player) -> object:
                return b"map 7 for " + player.name.encode()

            def joined(self, player: Player) -> object:
                player.send(b"\x10welcome")
                return None

        self.server.game = Settled()
        proxy = self.connect()
        self.assertIsNone(proxy.admit())
        self.assertEqual(proxy.after, [b"\x03map 7 for ann", b"\x10welcome"])

    def test_settings_failed(self) -> None:
        """Settings that are none refuse the player: it was not let in yet."""

        class Unsettled(Notes):
            def settings(self, player: Player) -> object:
                return "text"

        self.server.game = self.game = Unsettled()
        proxy = self.connect()
        proxy.ask()
        self.assertEqual(proxy.notice(), (REFUSED, "internal"))
        self.assertEqual(self.game.happened, [])

    def test_send_too_early(self) -> None:
        """Nothing can be sent before the player is in: the proxy would take it for an answer to ADMIT."""
        notice = None

        class Hasty(Notes):
            def admitting(self, player: Player) -> object:
                player.send(b"\x10hello")
                return None

        self.server.game = Hasty()
        proxy = self.connect()
        proxy.ask()
        notice = proxy.notice()
        self.assertEqual(notice, (REFUSED, "internal"))
        self.assertIn("the player is not in yet", self.logged[0])

    def test_reserved(self) -> None:
        """While it is reserved nobody is let in; those who are in play on. Then there is room again."""
        proxy, _ = self.let_in("1")
        self.server.reserve(10.0)
        self.reactor.advance(9.9)
        second = self.connect("2")
        second.ask()
        self.assertEqual(second.notice(), (REFUSED, "full"))
        proxy.send(b"\x10hi")
        self.assertEqual(self.game.happened[-1], ("received", b"\x10hi"))
        self.reactor.advance(0.1)
        self.let_in("3")

    def test_reserved_again(self) -> None:
        """A new reservation takes the place of the last one; one without end is ended by the game."""
        self.server.reserve(1.0)
        self.server.reserve(math.inf)
        self.reactor.advance(100.0)
        self.assertEqual(self.server.why_no_room(), "full")
        self.server.reserve(0)
        self.assertIsNone(self.server.why_no_room())
        for wrong in (-1.0, math.nan):
            self.assertRaises(ValueError, self.server.reserve, wrong)


class PlayTest(GameServerTestCase):
    """What a player does, and what is done to it"""

    def setUp(self) -> None:
        super().setUp()
        self.proxy, self.player = self.let_in()

    def test_frames(self) -> None:
        """Frames go to the game and to the player, in order; an empty one too."""
        self.proxy.send(b"\x10a")
        self.proxy.send(b"")
        self.assertEqual(self.game.happened[1:], [("received", b"\x10a"), ("received", b"")])
        self.player.send(b"\x11b")
        self.player.send(b"")
        self.player.send_settings(b"s")
        self.assertEqual(self.proxy.frames(), [b"\x11b", b"", b"\x03s"])

    def test_large_frames(self) -> None:
        """Once in, frames may be as large as the format has it, and no larger."""
        self.proxy.send(b"\x10" * 100_000)
        self.assertEqual(len(self.game.happened), 2)
        self.player.send_settings(bytes(100_000))
        self.proxy.transport.take()
        self.proxy.transport.deliver((INT32.max_frame + 1).to_bytes(4, "big"))
        self.assertTrue(self.proxy.is_ended)
        self.assertIsNone(self.proxy.transport.how, "what was sent before is not lost")

    def test_not_a_games_frame(self) -> None:
        """A frame that the proxy would take for its own is not sent, and neither is one that is too large."""
        for body in (b"\x0bKICK", bytes(INT32.max_frame + 1)):
            self.assertRaises(ValueError, self.player.send, body)
            self.assertRaises(ValueError, self.server.broadcast, body)
        self.assertRaises(ValueError, self.player.close, "long" * 1024)
        self.assertRaises(ValueError, self.player.kick, "long" * 1024)
        for seconds in (-1.0, math.inf, math.nan):
            self.assertRaises(ValueError, self.player.kick, "no time", ban_for=seconds)
        self.assertEqual(self.proxy.frames(), [])
        self.assertFalse(self.proxy.is_ended)

    def test_client_leaves(self) -> None:
        """CLOSE ends the connection; what comes after it is not the game's. The game is told once that it left."""
        close = Notice("left", "bye").encode(FrameType.CLOSE)
        self.proxy.send(close, b"\x10late")
        self.assertTrue(self.proxy.is_ended)
        self.player.send(b"\x10nobody hears")
        self.assertEqual(self.proxy.frames(), [])
        self.proxy.close()
        self.assertEqual(self.game.happened[1:], [("left", "ann")])
        self.assertEqual(self.server.players, {})
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_close(self) -> None:
        """The game can end a session; nothing is sent after CLOSE, and CLOSE not twice."""
        self.player.close("Game over.")
        self.player.close("Game over.")
        self.player.send(b"\x10late")
        (frame,) = self.proxy.frames()
        self.assertEqual(frame[0], FrameType.CLOSE)
        self.assertEqual(decode_notice(frame[1:]), Notice("left", "Game over."))
        self.assertTrue(self.proxy.is_ended)
        self.assertIsNone(self.proxy.transport.how, "not reset: CLOSE might be lost")

    def test_kick(self) -> None:
        """The game can have a player kicked and banned: that is for the proxy to do."""
        self.player.kick("Cheater.", ban_for=60.0)
        (frame,) = self.proxy.frames()
        kick = decode_kick(frame[1:])
        self.assertEqual((frame[0], kick.message, kick.ban_for), (0x0B, "Cheater.", 60.0))
        self.assertFalse(self.proxy.is_ended)

    def test_no_own_frames(self) -> None:
        """Where all frames are the game's, none is taken for the proxy's, and none of the proxy's is sent."""
        self.server.own_frames = False
        close = Notice("left", "").encode(FrameType.CLOSE)
        self.proxy.send(close)
        self.assertEqual(self.game.happened[-1], ("received", close))
        self.player.send_settings(b"x")
        self.player.kick("Cheater.")
        self.player.send(b"\x03 is a letter of the game's")
        self.player.close("Game over.")
        self.assertEqual(self.proxy.frames(), [b"\x03 is a letter of the game's"])
        self.assertTrue(self.proxy.is_ended)

    def test_no_own_settings(self) -> None:
        """Where all frames are the game's, its settings are not sent."""

        class Settled(Notes):
            def settings(self, player: Player) -> object:
                return b"map 7"

        self.server.game = Settled()
        self.server.own_frames = False
        proxy = self.connect("2")
        self.assertIsNone(proxy.admit())
        self.assertEqual(proxy.after, [])

    def test_backpressure(self) -> None:
        """Whose buffer is full is not read from until it takes something."""
        self.player.send(b"\x10" * 200_000)
        self.assertFalse(self.proxy.transport.reading)
        self.proxy.transport.take()
        self.assertTrue(self.proxy.transport.reading)

    def test_does_not_take(self) -> None:
        """Who takes nothing of 1 MiB and more is let go of; the others and the game play on."""
        other, _ = self.let_in("2", "eve")
        for _ in range(20):
            self.server.broadcast(b"\x10" * 100_000)
            other.transport.take()
        self.assertEqual(self.proxy.transport.how, "aborted")
        self.assertLess(len(self.proxy.transport.written), 1_400_000)
        self.assertIsNone(other.transport.how)
        self.assertEqual(self.game.happened[-1], ("left", "ann"))
        self.assertIn("<Player 'ann', session '5e55'> does not take what is sent", self.logged[0])

    def test_takes_late(self) -> None:
        """Who takes everything, though late, and never all at once, is not let go of however much it is."""
        for _ in range(100):
            self.player.send(b"\x10" * 100_000)
            self.proxy.transport.take(70_000)
            self.proxy.transport.take(70_000)
        self.assertIsNone(self.proxy.transport.how)
        self.proxy.transport.take()
        self.proxy.transport.take()
        self.assertEqual(self.proxy.frames(), [b"\x10" * 100_000] * 100)

    def test_small_buffer(self) -> None:
        """How much may wait is the program's to say."""
        self.serve(send_buffer_max=1000)
        proxy, player = self.let_in()
        player.send(b"\x10" * 70_000)
        self.assertIsNone(proxy.transport.how)
        player.send(b"\x10" * 1000)
        self.assertEqual(proxy.transport.how, "aborted")

    def test_echo(self) -> None:
        """The echo game sends each frame back."""
        Echo().received(self.player, b"\x10again")
        self.assertEqual(self.proxy.frames(), [b"\x10again"])

    def test_plain_game(self) -> None:
        """A game need not override anything."""
        self.server.game = Game()
        proxy, _ = self.let_in("2", "eve")
        proxy.send(b"\x10hello")
        proxy.close()
        self.assertEqual(list(self.server.players), ["5e55"])
        done = self.service.stopService()
        self.proxy.close()
        self.successResultOf(done)
        self.assertEqual(self.logged, [])


class AllPlayersTest(GameServerTestCase):
    """What concerns all players"""

    def setUp(self) -> None:
        super().setUp()
        self.serve(capacity=10)
        self.ann, self.first = self.let_in("1", "ann")
        self.eve, self.second = self.let_in("2", "eve")
        self.ann_too, self.third = self.let_in("3", "ann")

    def test_broadcast(self) -> None:
        """All get what is sent to all, but one who is left out."""
        self.server.broadcast(b"\x10a")
        self.server.broadcast(b"\x10b", but=self.second)
        self.assertEqual(self.ann.frames(), [b"\x10a", b"\x10b"])
        self.assertEqual(self.eve.frames(), [b"\x10a"])
        self.assertEqual(self.ann_too.frames(), [b"\x10a", b"\x10b"])

    def test_find(self) -> None:
        """A player is found by name; of two of one name, the one who came first."""
        self.assertIs(self.server.find("eve"), self.second)
        self.assertIs(self.server.find("ann"), self.first)
        self.assertIsNone(self.server.find("bob"))
        self.ann.close()
        self.assertIs(self.server.find("ann"), self.third)

    def test_order(self) -> None:
        """Players stand in the order in which they came."""
        self.assertEqual([*self.server.players.values()], [self.first, self.second, self.third])


class StopTest(GameServerTestCase):
    """Its end"""

    def test_players(self) -> None:
        """When it stops, players are told, and it waits until they are gone."""
        proxies = [self.let_in(f"{n}")[0] for n in range(2)]
        done = self.service.stopService()
        for proxy in proxies:
            self.assertNoResult(done)
            self.assertEqual(proxy.notice(), (CLOSE, "draining"))
            proxy.close()
        self.successResultOf(done)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_player_who_stays(self) -> None:
        """It does not wait for ever for one who neither takes anything nor closes; who goes later is no trouble."""
        proxy, _ = self.let_in()
        done = self.service.stopService()
        self.reactor.advance(2.0)
        self.successResultOf(done)
        proxy.close()
        self.assertEqual(self.game.happened[-1], ("left", "ann"))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_handshake_under_way(self) -> None:
        """Who is not in yet keeps nothing waiting."""
        proxy = self.connect()
        self.successResultOf(self.service.stopService())
        self.assertTrue(proxy.is_ended)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nobody(self) -> None:
        """With nobody in, it stops at once; and who then still connects is turned away."""
        self.successResultOf(self.service.stopService())
        proxy = self.connect()
        proxy.ask()
        self.assertEqual(proxy.notice(), (REFUSED, "draining"))

    def test_not_started(self) -> None:
        """What was never started can be stopped, and listens nowhere."""
        self.make()
        self.assertEqual(self.server.port, 0)
        self.successResultOf(self.service.stopService())

    def test_twice(self) -> None:
        """Who asks a second time is told when it is done, too, and players are told once."""
        proxy, _ = self.let_in()
        first, second = self.service.stopService(), self.service.stopService()
        self.assertEqual(proxy.notice(), (CLOSE, "draining"))
        self.assertNoResult(second)
        proxy.close()
        self.successResultOf(first)
        self.successResultOf(second)
        self.successResultOf(self.service.stopService())

    def test_shutdown(self) -> None:
        """The game may end its game server, in good order; to say so twice changes nothing."""
        self.make()
        served = Deferred.fromCoroutine(self.server.serve())
        proxy, _ = self.let_in()
        self.server.shutdown()
        self.server.shutdown()
        self.assertNoResult(served)
        self.assertEqual(proxy.notice(), (CLOSE, "draining"))
        proxy.close()
        self.successResultOf(served)


class LifeTest(GameServerTestCase):
    """What a game is told of its game server"""

    def live(self, **methods: Any) -> list[Any]:
        """Start a game server whose game has these methods, and notes what is called. What its methods give is given
        back; an exception is raised."""
        happened: list[Any] = []

        def method(name: str) -> Any:
            def called(game: Game, *arguments: Any) -> Any:
                happened.append(name)
                result = methods.get(name)
                if isinstance(result, Exception):
                    raise result
                return result

            return called

        names = ("started", "stopped", *methods)
        self.game = type("Told", (Game,), {name: method(name) for name in names})()
        self.make()
        self.served = Deferred.fromCoroutine(self.server.serve())
        return happened

    def test_started_and_stopped(self) -> None:
        """It is told when the game server listens, and when it is about to end."""
        happened = self.live()
        self.assertEqual(happened, ["started"])
        self.server.shutdown()
        self.assertEqual(happened, ["started", "stopped"])
        self.successResultOf(self.served)

    def test_starts_slowly(self) -> None:
        """Nobody is let in while the game starts; who has connected meanwhile is let in then."""
        loaded: Deferred[None] = Deferred()
        self.live(started=loaded)
        proxy = self.connect()
        self.assertEqual(proxy.frames(), [])
        loaded.callback(None)
        self.assertIsNone(proxy.admit())

    def test_start_fails(self) -> None:
        """A game that cannot start ends its game server, which listens no more: the farm counts a failed start."""
        self.live(started=ZeroDivisionError())
        self.failureResultOf(self.served, ZeroDivisionError)
        (port,) = self.reactor.ports
        self.assertTrue(port.is_closed)

    def test_stopped_while_starting(self) -> None:
        """A game server that is asked to end while its game starts, ends, and lets nobody in."""
        loaded: Deferred[None] = Deferred()
        happened = self.live(started=loaded)
        proxy = self.connect()
        self.server.drain()
        loaded.callback(None)
        self.successResultOf(self.served)
        self.assertEqual((proxy.frames(), proxy.is_ended), ([], True))
        self.assertEqual(happened, ["started"])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_drain(self) -> None:
        """A game without an opinion ends when it is drained: its players are told."""
        self.live()
        proxy, _ = self.let_in()
        self.server.drain()
        self.assertTrue(self.server.is_draining)
        self.assertEqual(proxy.notice(), (CLOSE, "draining"))
        proxy.close()
        self.successResultOf(self.served)

    def test_drain_and_play_on(self) -> None:
        """A game may have its players play on when it is drained: nobody else is let in, and it ends when the last
        has left."""
        happened = self.live(draining=None, admitting=None)
        proxy, _ = self.let_in("1")
        self.server.drain()
        self.server.drain()
        late = self.connect("2")
        late.ask()
        self.assertEqual(late.notice(), (REFUSED, "draining"))
        late.close()
        self.assertEqual(proxy.frames(), [])
        self.assertNoResult(self.served)
        proxy.close()
        self.successResultOf(self.served)
        self.assertEqual(happened, ["started", "admitting", "draining", "stopped"])

    def test_drain_slowly(self) -> None:
        """A game may take its time for what it does when it is drained, though nobody is in."""
        saved: Deferred[None] = Deferred()
        self.live(draining=saved)
        self.server.drain()
        self.assertNoResult(self.served)
        saved.callback(None)
        self.successResultOf(self.served)

    def test_drain_fails(self) -> None:
        """A game that fails when it is drained ends, and its players are told."""
        self.live(draining=ZeroDivisionError())
        proxy, _ = self.let_in()
        self.server.drain()
        self.assertEqual(proxy.notice(), (CLOSE, "draining"))
        self.assertIn("ZeroDivisionError", self.logged[0])
        proxy.close()
        self.successResultOf(self.served)

    def test_stop_fails(self) -> None:
        """A game that fails when it is stopped does not keep its game server from ending."""
        self.live(stopped=ZeroDivisionError())
        self.server.shutdown()
        self.successResultOf(self.served)
        self.assertIn("ZeroDivisionError", self.logged[0])

    def test_cannot_listen(self) -> None:
        """An address that cannot be listened at is told to whoever starts it, as an error of the system's."""

        def listen(*arguments: Any, **more: Any) -> Any:
            raise CannotListenError("192.0.2.5", 5000, OSError(98, "Address already in use"))

        self.reactor.listenTCP = listen  # type: ignore[method-assign]  # it is a fake already
        self.make()
        self.service.startService()
        self.failureResultOf(self.service.started, OSError)


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

"""gameproxy.gameserver: what concerns one player is called in order and one at a time, also when it is asynchronous"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed

from gameproxy.gameserver import Game, Player, Refused
from gameproxy.messages import FrameType, Notice
from tests.game_server_fixture import CLOSE, REFUSED, GameServerTestCase, Proxy

CLOSE_FRAME = Notice("left", "").encode(FrameType.CLOSE)


class Slow(Game):
    """A game whose methods take their time: until the test says so.

    :ivar slow: the names of the methods that do.
    :ivar happened: what has begun (``+``) and ended (``-``), with the player's name, or the frame.
    :ivar waiting: what is under way.
    """

    def __init__(self, *slow: str) -> None:
        self.slow = slow
        self.happened: list[str] = []
        self.waiting: list[Deferred[Any]] = []

    async def _do(self, method: str, what: str) -> Any:
        self.happened.append(f"+{method} {what}")
        result = None
        if method in self.slow:
            wait: Deferred[Any] = Deferred()
            self.waiting.append(wait)
            result = await wait
        self.happened.append(f"-{method} {what}")
        return result

    async def admitting(self, player: Player) -> None:
        await self._do("admitting", player.name)

    async def settings(self, player: Player) -> bytes | None:
        settings: bytes | None = await self._do("settings", player.name)
        return settings

    async def joined(self, player: Player) -> None:
        await self._do("joined", player.name)

    async def received(self, player: Player, body: bytes) -> None:
        await self._do("received", body[1:].decode())

    async def left(self, player: Player) -> None:
        await self._do("left", player.name)

    def go_on(self, result: object = None) -> None:
        """What has waited longest goes on; an exception is raised there."""
        wait = self.waiting.pop(0)
        if isinstance(result, Exception):
            wait.errback(result)
        else:
            wait.callback(result)


class TurnsTestCase(GameServerTestCase):
    """Has a slow game"""

    def play(self, *slow: str) -> Slow:
        """Have a game some methods of which are slow."""
        game = self.server.game = self.game = Slow(*slow)
        return game


class AdmittingTest(TurnsTestCase):
    """While somebody is about to come in"""

    def test_order(self) -> None:
        """A player is admitted, settled and joined in this order; what it sent meanwhile comes then, in order."""
        game = self.play("admitting", "settings", "joined")
        proxy = self.connect()
        proxy.ask()
        proxy.send(b"\x101", b"\x102")
        self.assertFalse(proxy.transport.reading)
        self.assertEqual((game.happened, proxy.frames()), (["+admitting ann"], []))
        game.go_on()
        self.assertEqual((game.happened[-1], proxy.frames()), ("+settings ann", []))
        self.assertFalse(proxy.transport.reading)
        game.go_on(b"map 7")
        self.assertEqual(game.happened[-1], "+joined ann")
        admitted, settings = proxy.frames()
        self.assertIsNone(proxy.handshake.receive(admitted))
        self.assertEqual(settings, b"\x03map 7")
        self.assertEqual(list(self.server.players), ["5e55"])
        self.assertFalse(proxy.transport.reading)
        game.go_on()
        self.assertTrue(proxy.transport.reading)
        proxy.transport.deliver()
        self.assertEqual(
            game.happened[5:],
            ["-joined ann", "+received 1", "-received 1", "+received 2", "-received 2"],
        )

    def test_place_is_held(self) -> None:
        """Who is about to come in has its place: others find the game server full, and its session is in."""
        game = self.play("admitting")
        self.server.capacity = 1
        self.connect("1").ask()
        second = self.connect("2")
        second.ask()
        self.assertEqual(second.notice(), (REFUSED, "full"))
        twin = self.connect("1")
        twin.ask()
        self.assertEqual((twin.frames(), twin.is_ended), ([], True))
        game.go_on()
        self.assertEqual(list(self.server.players), ["1"])

    def test_refused(self) -> None:
        """A refusal may take its time."""
        game = self.play("admitting")
        proxy = self.connect()
        proxy.ask()
        game.go_on(Refused("too_young", "Come back in a year."))
        self.assertEqual(proxy.notice(), (REFUSED, "too_young"))
        self.assertTrue(proxy.is_ended)
        proxy.close()
        self.assertEqual(game.happened, ["+admitting ann"])
        self.assertEqual(self.logged, [])

    def test_gone_meanwhile(self) -> None:
        """Who goes before it was let in never joins, and never leaves; its place is free at once."""
        for result in (None, ZeroDivisionError()):
            game = self.play("admitting")
            proxy = self.connect()
            proxy.ask()
            proxy.transport.reset()
            self.assertIsNone(self.server.why_no_room())
            self.assertFalse(self.server.has_session("5e55"))
            game.go_on(result)
            self.assertNotIn("+joined ann", game.happened)
            self.assertNotIn("+left ann", game.happened)
            self.assertEqual(self.server.players, {})
        self.assertEqual(len(self.logged), 1)

    def test_drained_meanwhile(self) -> None:
        """Who was about to come in when the game server was drained is turned away."""
        game = self.play("settings")
        game.draining = lambda server: None  # type: ignore[method-assign]  # those who are in play on
        proxy = self.connect()
        proxy.ask()
        self.server.drain()
        game.go_on()
        self.assertEqual(proxy.notice(), (REFUSED, "draining"))
        self.assertEqual(self.server.players, {})

    def test_reserved_meanwhile(self) -> None:
        """Who was about to come in when the game server was reserved is let in: its place was taken before."""
        game = self.play("admitting")
        proxy = self.connect()
        proxy.ask()
        self.server.reserve(60.0)
        game.go_on()
        (admitted,) = proxy.frames()
        self.assertIsNone(proxy.handshake.receive(admitted))


class PlayingTest(TurnsTestCase):
    """While somebody plays"""

    def start(self, *slow: str) -> tuple[Slow, Proxy, Player]:
        """A player is in."""
        game = self.play(*slow)
        proxy, player = self.let_in()
        game.happened.clear()
        return game, proxy, player

    def test_no_overlap(self) -> None:
        """Frames wait for the one before; meanwhile nothing is read from this player, and others play on."""
        game, proxy, _ = self.start("received")
        proxy.send(b"\x101", b"\x102")
        self.assertEqual(game.happened, ["+received 1"])
        self.assertFalse(proxy.transport.reading)
        other, _ = self.let_in("2", "eve")
        other.send(b"\x10a")
        self.assertEqual(game.happened[-1], "+received a")
        game.go_on()
        self.assertEqual(game.happened[-2:], ["-received 1", "+received 2"])
        self.assertFalse(proxy.transport.reading)
        game.go_on()
        game.go_on()
        self.assertTrue(proxy.transport.reading)
        self.assertEqual(game.happened[-2:], ["-received a", "-received 2"])

    def test_many_at_once(self) -> None:
        """However many frames come at once, no one costs any of the stack: also of those that are asynchronous and
        have no need to wait."""
        game, proxy, _ = self.start()
        proxy.send(*[b"\x10"] * 5000)
        self.assertEqual(len(game.happened), 10_000)

    def test_waits_for_what_is_there(self) -> None:
        """A plain method may give a future as well; it need not be waited for when it is there."""
        game, proxy, _ = self.start()
        results: list[Deferred[None]] = [Deferred(), succeed(None), Deferred()]
        got = []

        def received(player: Player, body: bytes) -> Deferred[None]:
            got.append(body)
            return results[len(got) - 1]

        game.received = received  # type: ignore[method-assign,assignment]  # as another way to write a game
        proxy.send(b"\x101", b"\x102", b"\x103")
        self.assertEqual(got, [b"\x101"])
        results[0].callback(None)
        self.assertEqual(got, [b"\x101", b"\x102", b"\x103"])

    def test_leaves_meanwhile(self) -> None:
        """Who leaves while its frame is being dealt with has left when that is done, once; CLOSE comes in order."""
        game, proxy, _ = self.start("received")
        proxy.send(b"\x101", CLOSE_FRAME, b"\x102")
        self.assertFalse(proxy.is_ended)
        game.go_on()
        self.assertTrue(proxy.is_ended)
        proxy.close()
        self.assertEqual(game.happened, ["+received 1", "-received 1", "+left ann", "-left ann"])

    def test_lost_meanwhile(self) -> None:
        """Whose connection breaks meanwhile is no longer among the players, and has left when it is its turn."""
        game, proxy, _ = self.start("received", "left")
        proxy.send(b"\x101", b"\x102")
        proxy.transport.reset()
        self.assertEqual(self.server.players, {})
        self.assertEqual(game.happened, ["+received 1"])
        game.go_on()
        self.assertEqual(game.happened[1:], ["-received 1", "+left ann"])
        game.go_on()
        self.assertEqual(game.happened[-1], "-left ann")

    def test_lost_within(self) -> None:
        """A connection that breaks while a plain method of its player runs: the player has left after that."""
        game, proxy, _ = self.start()
        happened = game.happened

        def received(player: Player, body: bytes) -> None:
            happened.append("+received")
            proxy.transport.reset()
            happened.append("-received")

        game.received = received  # type: ignore[method-assign,assignment]  # as another way to write a game
        proxy.send(b"\x101", b"\x102")
        self.assertEqual(happened, ["+received", "-received", "+left ann", "-left ann"])

    def test_stops_meanwhile(self) -> None:
        """The game server waits for what is under way, but not for ever."""
        game, proxy, _ = self.start("left")
        done = self.service.stopService()
        proxy.close()
        self.assertNoResult(done)
        game.go_on()
        self.successResultOf(done)
        self.serve()
        game, proxy, _ = self.start("received")
        proxy.send(b"\x101")
        done = self.service.stopService()
        proxy.close()
        self.reactor.advance(2.0)
        self.successResultOf(done)
        game.go_on()
        self.assertEqual(game.happened[-1], "-left ann")


class FailingTest(TurnsTestCase):
    """When a game fails with a player"""

    def assert_ended(self, proxy: Proxy) -> None:
        """See that this session alone has ended, in good order."""
        self.assertEqual(proxy.notice(), (CLOSE, "internal"))
        self.assertTrue(proxy.is_ended)
        self.assertIsNone(proxy.transport.how)
        self.assertIn("A game has failed with <Player 'ann', session '5e55'>.", self.logged[0])
        self.assertIn("ZeroDivisionError: my secret", self.logged[0])
        proxy.close()
        self.let_in("2", "eve")

    def test_plain(self) -> None:
        """A plain method that raises ends the session of its player; nothing that came after is dealt with."""
        game = self.play()
        got = []

        def received(player: Player, body: bytes) -> None:
            got.append(body)
            raise ZeroDivisionError("my secret")

        game.received = received  # type: ignore[method-assign,assignment]  # as another way to write a game
        proxy, _ = self.let_in()
        proxy.send(b"\x101", b"\x102")
        self.assertEqual(got, [b"\x101"])
        self.assert_ended(proxy)
        self.assertIn("-left ann", game.happened)

    def test_asynchronous(self) -> None:
        """So does an asynchronous one; and one that was cancelled."""
        game = self.play("received")
        proxy, _ = self.let_in()
        proxy.send(b"\x101", b"\x102")
        game.go_on(ZeroDivisionError("my secret"))
        self.assert_ended(proxy)
        self.assertIn("-left ann", game.happened)
        self.assertNotIn("+received 2", game.happened)
        other, _ = self.let_in("3", "bob")
        other.send(b"\x101")
        game.waiting.pop().cancel()
        self.assertEqual(other.notice(), (CLOSE, "internal"))

    def test_joined(self) -> None:
        """Who was told of has left, too, though the game failed when it joined."""
        game = self.play("joined")
        proxy = self.connect()
        proxy.ask()
        game.go_on(ZeroDivisionError("my secret"))
        _, close = proxy.frames()
        self.assertEqual(close[0], CLOSE)
        proxy.close()
        self.assertEqual(game.happened[-2:], ["+left ann", "-left ann"])

    def test_refused_too_late(self) -> None:
        """Who is in cannot be refused any more: that is a failure like others."""
        game = self.play("joined")
        proxy = self.connect()
        proxy.ask()
        game.go_on(Refused("full", "no"))
        _, close = proxy.frames()
        self.assertEqual(close[0], CLOSE)

    def test_left(self) -> None:
        """A failure after the player has left concerns nobody; it is told once that it left."""
        game = self.play("left")
        proxy, _ = self.let_in()
        proxy.close()
        game.go_on(ZeroDivisionError("my secret"))
        self.assertEqual(game.happened.count("+left ann"), 1)
        self.assertEqual(len(self.logged), 1)
        self.successResultOf(self.service.stopService())

"""gameproxy.arena.screen and gameproxy.arena.drawing"""

from __future__ import annotations

import asyncio
import builtins
import io
import sys
from collections.abc import Awaitable, Callable
from contextlib import redirect_stderr
from types import SimpleNamespace
from typing import Any
from unittest import mock

from textual.pilot import Pilot
from textual.widgets import Static
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.drawing import advice, draw_field, draw_scores, shown_name, time_left
from gameproxy.arena.field import TILE, Won
from gameproxy.arena.frames import Seen, Snapshot, decode_input
from gameproxy.arena.screen import ArenaScreen
from gameproxy.arena.sight import Sight
from gameproxy.arena.walls import ARENA, Tile
from gameproxy.cli import main, play
from gameproxy.client import Client, Guest
from gameproxy.loops.on_asyncio import AsyncioLoop
from gameproxy.messages import FrameType, Notice
from gameproxy.testing import seeded_entropy
from tests.arena_proxy import ArenaProxy, ConnectsInMemory, queued, refusal

TAGGER, DASHING, SAFE, STUNNED = 0x10, 0x20, 0x40, 0x80


def sight_of(*players: Seen, coins: tuple[Tile, ...] = (), steps_left: int = 2400) -> Sight:
    """What player 1 sees."""
    sight = Sight(lambda: 0.0)
    sight.walls, sight.me = ARENA, 1
    sight.names = {one.id: f"guest:{chr(96 + one.id)}name" for one in players}
    sight.snapshot = Snapshot(1, steps_left, players, coins)
    return sight


def at(column: int, row: int, id: int = 1, look: int = 0, score: int = 0) -> Seen:
    """A player in the middle of a tile."""
    return Seen(id, column * TILE + TILE // 2, row * TILE + TILE // 2, look, score, 0)


class DrawingTests(SynchronousTestCase):
    """What is drawn."""

    def test_whole_field(self) -> None:
        """Where there is room, all of the field is drawn: walls, coins, players, and oneself above all."""
        sight = sight_of(at(2, 2), at(5, 1, id=2), at(2, 2, id=3), coins=(Tile(7, 1),))
        lines = draw_field(sight, 80, 30).plain.split("\n")
        self.assertEqual((len(lines), {len(line) for line in lines}), (21, {60}))
        self.assertEqual(lines[0], "█" * 60)
        self.assertEqual(lines[1].rstrip(" █"), "██         B  $")
        self.assertEqual(lines[2].rstrip(" █"), "██   @")
        self.assertEqual(lines[3][8:18], "████████  ")

    def test_part(self) -> None:
        """Where there is little room, what is around oneself is drawn, and never anything outside the field."""
        for me in ARENA.floor:
            lines = draw_field(sight_of(at(*me)), 21, 7).plain.split("\n")
            self.assertEqual([len(line) for line in lines], [20] * 7)
            self.assertIn("@", "".join(lines))
        lines = draw_field(sight_of(at(15, 9), at(1, 1, id=2), coins=(Tile(1, 2),)), 20, 5)
        self.assertNotIn("B", lines.plain)
        self.assertNotIn("$", lines.plain)
        self.assertEqual(draw_field(sight_of(at(1, 1)), 1, 0).plain, "")

    def test_nothing_yet(self) -> None:
        """Before the first snapshot nothing is drawn."""
        sight = Sight(lambda: 0.0)
        for text in (draw_field(sight, 80, 24), draw_scores(sight, 20), advice(sight)):
            self.assertEqual(text.plain, "")
        self.assertEqual(time_left(sight), "0:00")

    def test_hostile_names(self) -> None:
        """Of a name nothing reaches the terminal that it would obey, and what is wide does not shift the rest."""
        sight = sight_of(at(2, 2), at(5, 1, id=2), at(7, 1, id=3), at(9, 1, id=4))
        sight.names |= {2: "guest:\x1b[2J", 3: "\u4e00", 4: "guest:"}
        line = draw_field(sight, 80, 30).plain.split("\n")[1]
        self.assertEqual(line.rstrip(" █"), "██         \\   ?   G")
        self.assertEqual(shown_name("guest:\x1b[2J"), "\\x1b[2J")
        self.assertNotIn("\x1b", draw_scores(sight, 10).plain)

    def test_looks(self) -> None:
        """Who is it, who is safe, and oneself can be told apart."""
        sight = sight_of(at(2, 2), at(5, 2, id=2, look=TAGGER), at(7, 2, id=3, look=SAFE))
        text = draw_field(sight, 80, 30)
        styles = {
            text.plain[span.start]: str(span.style)
            for span in text.spans
            if text.plain[span.start] in "@BC"
        }
        self.assertIn("on bright_white", styles["@"])
        self.assertIn("on red", styles["B"])
        self.assertIn("dim", styles["C"])

    def test_scores(self) -> None:
        """The best are listed, the one who is it is marked, and oneself is there in any case."""
        players = [at(2, 2, id=id, score=id, look=TAGGER if id == 9 else 0) for id in range(1, 11)]
        lines = draw_scores(sight_of(*players), 3).plain.split("\n")
        self.assertEqual(lines, ["   10 jname", "!   9 iname", "    1 aname"])
        sight = sight_of(at(2, 2))
        sight.names[1] = "\u4e00" * 30
        self.assertEqual(draw_scores(sight, 3).plain, "    0 " + "\u4e00" * 6)

    def test_time_left(self) -> None:
        """The time that is left is rounded up: 0:00 is the end."""
        for steps, text in ((2400, "2:00"), (2399, "2:00"), (1, "0:01"), (180, "0:09")):
            self.assertEqual(time_left(sight_of(at(2, 2), steps_left=steps)), text)

    def test_advice(self) -> None:
        """What matters most to oneself is said."""
        for look, text in (
            (TAGGER | STUNNED, "A moment"),
            (TAGGER, "Touch somebody"),
            (SAFE, "Nobody can tag you"),
            (0, "Pick up coins"),
        ):
            self.assertIn(text.lower(), advice(sight_of(at(2, 2, look=look))).plain.lower())
        sight = sight_of(at(2, 2))
        sight.last_won = Won(2, 7), "guest:ben"
        self.assertEqual(advice(sight).plain, "ben won the last round, with 7 coins.")
        sight.last_won = Won(1, 8), "guest:aname"
        self.assertEqual(advice(sight).plain, "You won the last round, with 8 coins.")


class ArenaLoop(ConnectsInMemory, AsyncioLoop):
    """asyncio's loop, at whose connections' other end the arena is."""


class Scene:
    """The screen on a terminal of 80 by 24, and the arena behind it."""

    def __init__(self, proxy: ArenaProxy, screen: ArenaScreen, pilot: Pilot[int]) -> None:
        self.proxy = proxy
        self.screen = screen
        self.pilot = pilot

    def shown(self, id: str) -> str:
        """What stands somewhere on the screen."""
        return str(self.screen.query_one(f"#{id}", Static).content)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so, and fail if it takes too long."""
        for _ in range(500):
            if condition():
                return
            await self.pilot.pause(0.02)
        raise AssertionError(f"it has not come to be so: {self.shown('field')!r}")

    async def played(self) -> None:
        """Wait until the field is shown."""
        await self.until(lambda: "@" in self.shown("field"))


class ScreenTests(SynchronousTestCase):
    """The screen, with keys pressed."""

    def run_scene(
        self,
        scene: Callable[[Scene], Awaitable[None]],
        prepare: Callable[[ArenaLoop], None] = lambda loop: None,
        size: tuple[int, int] = (80, 24),
    ) -> ArenaScreen:
        """Play a scene.

        :param prepare: is given the loop before the client connects.
        """

        async def play_it() -> ArenaScreen:
            loop = ArenaLoop()
            loop.proxy = ArenaProxy(loop)
            prepare(loop)
            screen = ArenaScreen(
                lambda own: Client(loop, "proxy", 7777, Guest("ana")), seeded_entropy()
            )
            async with screen.run_test(size=size) as pilot:
                await scene(Scene(loop.proxy, screen, pilot))
            loop.proxy.timer.cancel()
            return screen

        return asyncio.run(play_it())

    def test_play(self) -> None:
        """One sees the field, the scores, the game server's name, the time and the round trip; keys become inputs; q
        leaves in good order."""

        async def scene(one: Scene) -> None:
            await one.played()
            self.assertEqual(one.shown("field").count("\n"), 20)
            self.assertIn("ana", one.shown("scores"))
            await one.until(lambda: " ms" in one.shown("title"))
            self.assertRegex(one.shown("title"), r"\d:\d\d left   arena-1   round trip \d+ ms")
            visit = one.proxy.visits[0]
            for key, heading in (
                ("right", 1),
                ("s", 3),
                ("left", 5),
                ("w", 7),
                ("d", 1),
                ("down", 3),
                ("a", 5),
                ("up", 7),
                ("x", 0),
            ):
                await one.pilot.press(key)
                await one.until(
                    lambda heading=heading: decode_input(visit.inputs[-1]).heading == heading
                )
            await one.pilot.press("right", "space")
            await one.until(lambda: any(decode_input(body).dash for body in visit.inputs))
            count = len(visit.inputs)
            one.screen.action_run("right")
            self.assertEqual(len(visit.inputs), count, "nothing is new")
            await one.pilot.press("q")
            await one.until(lambda: not one.screen.is_running)
            self.assertTrue(visit.left)

        screen = self.run_scene(scene)
        self.assertEqual((screen.return_value, screen.farewell), (0, ""))

    def test_waiting(self) -> None:
        """While the player waits for a place, it is said how."""

        async def scene(one: Scene) -> None:
            await one.until(lambda: "taken.\n(queued, place 3)" in one.shown("field"))
            await one.pilot.press("right", "space", "q")

        def only_wait(loop: ArenaLoop) -> None:
            loop.proxy.before_welcome = [queued(3)]
            loop.proxy.welcomes = False

        screen = self.run_scene(scene, only_wait)
        self.assertEqual(screen.return_value, 0)

    def test_refused(self) -> None:
        """Who is not let in is told why, when the screen is gone."""

        async def scene(one: Scene) -> None:
            await one.until(lambda: not one.screen.is_running)

        def refuse(loop: ArenaLoop) -> None:
            loop.proxy.before_welcome = [refusal("banned")]

        screen = self.run_scene(scene, refuse)
        self.assertEqual((screen.return_value, screen.farewell), (1, "banned: Not now."))

    def test_lost(self) -> None:
        """When a game server is lost, that is said, and the player comes to another after a pause."""

        async def scene(one: Scene) -> None:
            await one.played()
            one.proxy.visits[0].say(Notice("server_lost", "Gone.").encode(FrameType.CLOSE))
            one.proxy.visits[0].cut()
            await one.until(lambda: "server_lost: Gone.\nTrying again" in one.shown("field"))
            await one.until(lambda: len(one.proxy.visits) == 2)
            await one.played()
            await one.pilot.press("q")
            await one.until(lambda: not one.screen.is_running)

        self.assertEqual(self.run_scene(scene).farewell, "")

    def test_cannot_connect(self) -> None:
        """When nobody answers, that is said, and the player may leave."""

        async def scene(one: Scene) -> None:
            await one.until(lambda: "Nobody is there.\nTrying again" in one.shown("field"))
            await one.pilot.press("q")
            await one.until(lambda: not one.screen.is_running)

        def nobody(loop: ArenaLoop) -> None:
            loop.proxy.error = OSError("Nobody is there.")

        self.assertEqual(self.run_scene(scene, nobody).return_value, 0)

    def test_kicked(self) -> None:
        """Who is kicked is told so, with nothing that a terminal would obey."""

        async def scene(one: Scene) -> None:
            await one.played()
            one.proxy.visits[0].close("Be gone\x1b.", "kicked")
            await one.until(lambda: not one.screen.is_running)

        screen = self.run_scene(scene)
        self.assertEqual((screen.return_value, screen.farewell), (1, "kicked: Be gone\\x1b."))

    def test_over(self) -> None:
        """When the game server ends the session in good order, it is said what it says."""

        async def scene(one: Scene) -> None:
            await one.played()
            one.proxy.visits[0].close("That was all.")
            await one.until(lambda: not one.screen.is_running)

        screen = self.run_scene(scene)
        self.assertEqual((screen.return_value, screen.farewell), (0, "left: That was all."))

    def test_another_game(self) -> None:
        """A game that is not the arena is left, and that is said."""

        async def scene(one: Scene) -> None:
            await one.played()
            one.proxy.visits[0].say(b"\x10hello")
            await one.until(lambda: not one.screen.is_running)
            self.assertTrue(one.proxy.visits[0].left)

        screen = self.run_scene(scene)
        self.assertEqual(screen.return_value, 1)
        self.assertIn("This is not the arena: ", screen.farewell)

    def test_leave_at_once(self) -> None:
        """Who presses q twice does not wait for the proxy."""

        async def scene(one: Scene) -> None:
            await one.played()
            one.proxy.visits[0].cut = lambda: None  # type: ignore[method-assign]
            await one.pilot.press("q")
            self.assertEqual(one.shown("advice"), "Leaving ...")
            await one.pilot.press("q")
            await one.until(lambda: not one.screen.is_running)

        self.assertEqual(self.run_scene(scene).return_value, 0)

    def test_resize(self) -> None:
        """When the terminal changes its size, the part that is drawn changes too, also if nothing else does."""

        async def scene(one: Scene) -> None:
            await one.played()
            one.proxy.timer.cancel()
            await one.pilot.resize_terminal(50, 14)
            await one.until(lambda: one.shown("field").count("\n") == 10)
            await one.pilot.resize_terminal(120, 40)
            await one.until(lambda: one.shown("field").count("\n") == 20)

        self.run_scene(scene)

    def test_behind(self) -> None:
        """While the proxy takes nothing, keys do nothing, and nothing breaks."""

        async def scene(one: Scene) -> None:
            await one.played()
            visit = one.proxy.visits[0]
            visit.behind = 1 << 30  # type: ignore[misc]
            count = len(visit.inputs)
            await one.pilot.press("right", "space")
            self.assertEqual(len(visit.inputs), count)

        self.run_scene(scene)


class PlayTests(SynchronousTestCase):
    """The command."""

    def complaint(self, terminal: bool = True) -> str:
        """What is said when it cannot begin."""
        stream: Any = SimpleNamespace(isatty=lambda: terminal)
        with (
            mock.patch.object(sys, "stdin", stream),
            mock.patch.object(sys, "stdout", stream),
            redirect_stderr(io.StringIO()) as errors,
        ):
            self.assertEqual(main(["play", "127.0.0.1:7777", "--guest", "ana"]), 1)
        return errors.getvalue()

    def without(self, missing: str) -> Any:
        """As if a package were not installed."""
        real = builtins.__import__

        def fake(name: str, *rest: Any) -> Any:
            if name == "gameproxy.arena.screen":
                raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)
            return real(name, *rest)

        return mock.patch.object(builtins, "__import__", fake)

    def test_without_textual(self) -> None:
        """Without textual it is said what to install; what else is missing is a fault of its own."""
        with self.without("textual.app"):
            self.assertIn("pip install 'gameproxy[arena]'", self.complaint())
        with self.without("other"):
            self.assertRaises(ModuleNotFoundError, self.complaint)

    def test_without_terminal(self) -> None:
        """It needs a terminal."""
        self.assertIn("need a terminal", self.complaint(terminal=False))

    def test_result(self) -> None:
        """The exit status is that of the screen, and its farewell is printed; a screen that broke down is 1."""
        for result, status in ((0, 0), (1, 1), (None, 1)):
            screen = SimpleNamespace(run=lambda result=result: result, farewell="kicked: Go.")
            with mock.patch("gameproxy.arena.screen.ArenaScreen", return_value=screen) as made:
                stream: Any = SimpleNamespace(isatty=lambda: True)
                with (
                    mock.patch.object(play.sys, "stdin", stream),
                    mock.patch.object(play.sys, "stdout", stream),
                    redirect_stderr(io.StringIO()) as errors,
                ):
                    self.assertEqual(main(["play", "127.0.0.1:7777", "--guest", "ana"]), status)
                self.assertEqual(errors.getvalue(), "kicked: Go.\n")
                self.assertIsInstance(made.call_args.args[0](None), Client)

"""gameproxy.arena.bots"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.arena.bots import BACKOFF, REST, SAMPLES_MAX, SILENCE_MAX, STAY, Crowd
from gameproxy.arena.frames import ArenaFrame
from gameproxy.loops.on_asyncio import AsyncioLoop
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.messages import FrameType, Notice
from gameproxy.testing import seeded_entropy
from tests.arena_proxy import ArenaProxy, ConnectsInMemory, refusal

STEP = 0.025


class ArenaLoop(ConnectsInMemory, TwistedLoop):
    """A Twisted loop on a Clock, at whose connections' other end the arena is."""

    def __init__(self) -> None:
        self.clock = Clock()
        TwistedLoop.__init__(self, self.clock)  # type: ignore[arg-type]
        self.proxy = ArenaProxy(self)


class CrowdTests(SynchronousTestCase):
    """Bots, and what they notice."""

    def setUp(self) -> None:
        self.loop = ArenaLoop()
        self.proxy = self.loop.proxy
        self.troubles: list[str] = []
        self.crowd = Crowd(self.loop, "proxy", 7777, seeded_entropy(), self.troubles.append)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.loop.clock.advance(STEP)

    def names(self) -> list[str]:
        return [visit.name for visit in self.proxy.here]

    def tearDown(self) -> None:
        """All leave, and nothing of them is left."""
        gone = self.crowd.stop()
        self.pass_time(1)
        self.successResultOf(gone)
        self.assertEqual(self.proxy.here, [])
        self.assertEqual(self.crowd.statistics.playing, 0)
        self.proxy.timer.cancel()
        self.assertEqual(self.loop.clock.getDelayedCalls(), [])

    def test_they_come_and_go(self) -> None:
        """Each bot plays, leaves by CLOSE within its time, and comes again under its name."""
        self.crowd.add(3)
        self.pass_time(1)
        self.assertEqual(self.names(), ["guest:bot-1", "guest:bot-2", "guest:bot-3"])
        self.assertEqual(self.crowd.statistics.playing, 3)
        self.pass_time(STAY[1] + REST[1] + 1)
        for number in (1, 2, 3):
            visits = [one for one in self.proxy.visits if one.name == f"guest:bot-{number}"]
            self.assertGreater(len(visits), 1)
            self.assertTrue(visits[0].left)
            self.assertGreater(len(visits[0].inputs), STAY[0] / 0.4 - 1)
        self.assertEqual(self.troubles, [])
        statistics = self.crowd.statistics
        self.assertEqual(statistics.visits, len(self.proxy.visits))
        self.assertEqual((statistics.refused, statistics.cut_off), ({}, {}))

    def test_sense(self) -> None:
        """They play with sense: they pick up coins, and who is it tags others."""
        self.crowd.add(8)
        taggers: set[int] = set()
        best = 0
        for _ in range(20):
            self.pass_time(1)
            runners = self.proxy.arena.field.runners.values()
            taggers |= {runner.id for runner in runners if runner.tagger}
            best = max([best, *(runner.score for runner in runners)])
        self.assertGreater(best, 5)
        self.assertGreater(len(taggers), 1)
        self.assertEqual(self.troubles, [])

    def test_same_chance_same_game(self) -> None:
        """With the same entropy the same frames are sent."""

        def inputs() -> list[list[bytes]]:
            self.tearDown()
            self.setUp()
            self.crowd.add(4)
            self.pass_time(20)
            return [visit.inputs for visit in self.proxy.visits]

        self.assertEqual(inputs(), inputs())

    def test_samples(self) -> None:
        """Set-up times and round trips are measured, in seconds, and only so many are kept."""
        self.crowd.add(2)
        self.pass_time(3)
        statistics = self.crowd.statistics
        self.assertEqual(len(statistics.set_up_times), 2)
        self.assertTrue(all(0 < time < 0.1 for time in statistics.set_up_times))
        self.assertGreater(len(statistics.round_trips), 10)
        self.assertTrue(all(0 < time <= 0.1 for time in statistics.round_trips))
        self.assertEqual(statistics.set_up_times.maxlen, SAMPLES_MAX)
        self.assertEqual(statistics.round_trips.maxlen, SAMPLES_MAX)

    def test_remove(self) -> None:
        """Those that came last leave, and their names are taken again by those that are added."""
        self.crowd.add(3)
        self.pass_time(1)
        self.crowd.remove(2)
        self.pass_time(1)
        self.assertEqual((self.names(), len(self.crowd)), (["guest:bot-1"], 1))
        self.crowd.add(1)
        self.pass_time(1)
        self.assertEqual(self.names(), ["guest:bot-1", "guest:bot-2"])
        self.crowd.remove(99)
        self.assertEqual(len(self.crowd), 0)

    def test_stop_after_remove(self) -> None:
        """Who was told to leave before is waited for too."""
        self.crowd.add(1)
        self.pass_time(1)
        self.crowd.remove(1)
        gone = self.crowd.stop()
        self.assertNoResult(gone)
        self.pass_time(1)
        self.successResultOf(gone)

    def test_stop_at_rest(self) -> None:
        """A bot that rests when it is stopped does not come again."""
        self.crowd.add(1)
        self.pass_time(1)
        while self.proxy.here:
            self.pass_time(STEP)
        self.pass_time(0.1)
        self.successResultOf(self.crowd.stop())
        self.pass_time(2 * REST[1])
        self.assertEqual(len(self.proxy.visits), 1)

    def test_stop_while_connecting(self) -> None:
        """A bot that is still connecting gives up, and that is no trouble."""
        self.loop.hold = True
        self.crowd.add(1)
        self.successResultOf(self.crowd.stop())
        self.assertEqual(self.troubles, [])

    def test_stop_when_told(self) -> None:
        """Whoever hears of trouble may stop the crowd at once, whatever the trouble is."""
        stops: list[Awaitable[object]] = []
        self.crowd = Crowd(
            self.loop,
            "proxy",
            7777,
            seeded_entropy(),
            lambda trouble: stops.append(self.crowd.stop()),
        )
        self.crowd.add(1)
        self.pass_time(1)
        self.proxy.here[0].cut()
        self.pass_time(STEP)
        self.successResultOf(stops.pop())
        self.proxy.error = OSError("Nobody is there.")
        self.crowd.add(1)
        self.successResultOf(stops.pop())
        self.proxy.error = None
        self.proxy.before_welcome = [refusal("banned")]
        self.crowd.add(1)
        self.pass_time(STEP)
        self.successResultOf(stops.pop())
        self.pass_time(BACKOFF.longest)
        self.assertEqual((len(self.proxy.visits), stops), (2, []))

    def test_cannot_connect(self) -> None:
        """A bot that cannot connect says so, and tries again after a pause."""
        self.proxy.error = OSError("Nobody is there.")
        self.crowd.add(1)
        self.assertEqual(self.troubles, ["bot-1 could not connect: Nobody is there."])
        self.proxy.error = None
        self.pass_time(BACKOFF.first + 1)
        self.assertEqual(self.names(), ["guest:bot-1"])
        self.assertLess(self.crowd.statistics.set_up_times[0], 0.1)

    def test_no_place(self) -> None:
        """That there is no place now is counted, but no trouble: the bot tries again, not before it makes sense."""
        self.proxy.before_welcome = [refusal("queue_full", 3.0)]
        self.crowd.add(1)
        self.pass_time(2.9)
        self.proxy.before_welcome = []
        self.assertEqual(len(self.proxy.visits), 1)
        self.pass_time(1)
        self.assertEqual(self.names(), ["guest:bot-1"])
        self.assertEqual(self.crowd.statistics.refused, {"queue_full": 1})
        self.assertEqual(self.troubles, [])

    def test_refused(self) -> None:
        """That the bot is not wanted is trouble, and it comes no more."""
        self.proxy.before_welcome = [refusal("auth_failed")]
        self.crowd.add(1)
        self.pass_time(40)
        self.assertEqual(self.troubles, ["bot-1 was not let in: auth_failed: Not now."])
        self.assertEqual(self.crowd.statistics.refused, {"auth_failed": 1})
        self.assertEqual((len(self.proxy.visits), len(self.crowd)), (1, 1))

    def test_strange_codes(self) -> None:
        """Whatever codes come, those that nobody knows are counted as one."""
        self.proxy.before_welcome = [refusal("made-up")]
        self.crowd.add(2)
        self.pass_time(1)
        self.assertEqual(self.crowd.statistics.refused, {"other": 2})

    def cut_off(self, code: str) -> None:
        self.crowd.add(1)
        self.pass_time(1)
        visit = self.proxy.here[0]
        visit.say(Notice(code, "Gone.").encode(FrameType.CLOSE))
        visit.cut()
        self.pass_time(2)

    def test_server_lost(self) -> None:
        """That a session is cut off is trouble; the bot comes again where that makes sense."""
        self.cut_off("server_lost")
        self.assertEqual(self.troubles, ["bot-1 was cut off: server_lost: Gone."])
        self.assertEqual(self.crowd.statistics.cut_off, {"server_lost": 1})
        self.assertEqual(self.names(), ["guest:bot-1"])

    def test_draining(self) -> None:
        """A game server that is taken away in good order is no trouble."""
        self.cut_off("draining")
        self.assertEqual(self.troubles, [])
        self.assertEqual(self.crowd.statistics.cut_off, {"draining": 1})
        self.assertEqual(self.names(), ["guest:bot-1"])

    def test_kicked(self) -> None:
        """A bot that is kicked says so, and comes no more."""
        self.cut_off("kicked")
        self.assertEqual(self.troubles, ["bot-1 was cut off: kicked: Gone."])
        self.pass_time(40)
        self.assertEqual(len(self.proxy.visits), 1)

    def test_connection_breaks(self) -> None:
        """A connection that breaks is trouble, and the bot comes again."""
        self.crowd.add(1)
        self.pass_time(1)
        self.proxy.here[0].cut()
        self.pass_time(2)
        self.assertEqual(len(self.troubles), 1)
        self.assertIn("bot-1 was cut off: server_lost", self.troubles[0])
        self.assertEqual(self.names(), ["guest:bot-1"])

    def test_nonsense(self) -> None:
        """A bot notices what cannot be, leaves in good order, and comes no more."""
        self.crowd.add(1)
        self.pass_time(1)
        self.proxy.here[0].say(b"\x13\x3f")
        self.pass_time(40)
        self.assertEqual(self.troubles, ["bot-1 saw what cannot be: nobody knows player 63"])
        self.assertEqual(len(self.proxy.visits), 1)
        self.assertTrue(self.proxy.visits[0].left)

    def test_bad_settings(self) -> None:
        """So it does with settings."""
        self.proxy.alters = lambda body: [body + b"x" if body[0] == FrameType.SETTINGS else body]
        self.crowd.add(1)
        self.pass_time(1)
        self.assertEqual(len(self.troubles), 1)
        self.assertIn("bot-1 saw what cannot be: these are no settings", self.troubles[0])

    def test_silence(self) -> None:
        """A bot waits SILENCE_MAX seconds for a snapshot; other frames do not count."""
        self.proxy.alters = lambda body: [body] if body[0] != ArenaFrame.SNAPSHOT else []
        self.crowd.add(1)
        self.pass_time(SILENCE_MAX - 0.1)
        self.assertEqual(self.troubles, [])
        self.pass_time(1)
        self.assertEqual(self.troubles, ["bot-1 saw nothing for 5 s"])

    def test_behind(self) -> None:
        """An input that the proxy does not take is left out, and the bot plays on."""
        self.crowd.add(1)
        self.pass_time(1)
        visit = self.proxy.here[0]
        visit.behind = 1 << 30  # type: ignore[misc]
        count = len(visit.inputs)
        self.pass_time(1)
        self.assertEqual(len(visit.inputs), count)
        visit.behind = 0
        self.pass_time(1)
        self.assertGreater(len(visit.inputs), count)
        self.assertEqual(self.troubles, [])


class AsyncioArenaLoop(ConnectsInMemory, AsyncioLoop):
    """asyncio's loop, at whose connections' other end the arena is."""


class AsyncioTests(SynchronousTestCase):
    """The same bots on asyncio."""

    def run_scene(self, scene: Callable[[AsyncioArenaLoop, Crowd], Awaitable[None]]) -> list[str]:
        """Play a scene.

        :return: the troubles.
        """
        troubles: list[str] = []

        async def play() -> None:
            loop = AsyncioArenaLoop()
            loop.proxy = ArenaProxy(loop)
            crowd = Crowd(loop, "proxy", 7777, seeded_entropy(), troubles.append)
            await asyncio.wait_for(scene(loop, crowd), 20)
            await asyncio.wait_for(crowd.stop(), 5)
            self.assertEqual(crowd.statistics.playing, 0)
            self.assertEqual(loop.proxy.here, [])
            loop.proxy.timer.cancel()
            self.assertEqual(asyncio.all_tasks(), {asyncio.current_task()})

        asyncio.run(play(), debug=True)
        return troubles

    def test_play(self) -> None:
        """They come, play, and leave; one that is cut off comes again."""

        async def scene(loop: AsyncioArenaLoop, crowd: Crowd) -> None:
            crowd.add(3)
            while len(crowd.statistics.round_trips) < 10:
                await asyncio.sleep(0.01)
            loop.proxy.here[0].close("Gone.", "server_lost")
            while crowd.statistics.visits < 4:
                await asyncio.sleep(0.01)
            self.assertTrue(all(visit.inputs for visit in loop.proxy.visits[:3]))

        self.assertEqual(self.run_scene(scene), ["bot-1 was cut off: server_lost: Gone."])

    def test_leave_before_they_have_come(self) -> None:
        """Bots that are told to leave at once do so."""

        async def scene(loop: AsyncioArenaLoop, crowd: Crowd) -> None:
            crowd.add(2)

        self.assertEqual(self.run_scene(scene), [])

    def test_leave_at_any_time(self) -> None:
        """So do those that are anywhere on their way in, wait for that, or are about to hear that they are out."""

        async def scene(loop: AsyncioArenaLoop, crowd: Crowd) -> None:
            for turns in range(12):
                crowd.add(1)
                for _ in range(turns):
                    await asyncio.sleep(0)
                crowd.remove(1)
            loop.hold = True
            crowd.add(1)
            await asyncio.sleep(0.01)
            crowd.remove(1)
            loop.hold = False
            for turns in range(8):
                crowd.add(1)
                while not loop.proxy.here:
                    await asyncio.sleep(0)
                visit = loop.proxy.here[0]
                await asyncio.sleep(0.01)
                visit.close("Gone.", "draining")
                for _ in range(turns):
                    await asyncio.sleep(0)
                crowd.remove(1)

        self.assertEqual(self.run_scene(scene), [])

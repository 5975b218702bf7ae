"""Runs, their files, and how a failing one is made small."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import FunctionType

import pytest
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm.placement import Placement
from gameproxy.session_steps import SessionSteps
from gameproxy.simulation.faults import draw
from gameproxy.simulation.files import NotARun, first_difference, load, save
from gameproxy.simulation.network import SYN_REFUSED
from gameproxy.simulation.runs import Run, drawn, module_of, play
from gameproxy.simulation.shrinking import Shrinker, as_test, signature
from gameproxy.simulation.soaking import EXPECTED, SCENARIOS, Soak, Tally, soak


class RunTests(SynchronousTestCase):
    def test_again(self) -> None:
        """A run is the same when it is had again, line by line; its file says so."""
        result = play(drawn(5, "churn", clients=20), keep_trace=True)
        path = Path(self.mktemp())
        save(result, path)
        run, sha256, lines = load(path)
        again = play(run, keep_trace=True)
        self.assertEqual((run, sha256), (result.run, again.sha256))
        self.assertIsNone(first_difference(lines, again.lines))

    def test_a_difference_is_shown(self) -> None:
        """The first line that differs, also where one trace has ended."""
        self.assertEqual(first_difference(["a\n", "b\n"], ["a\n", "c\n"]), (2, "b", "c"))
        self.assertEqual(first_difference(["a\n"], ["a\n", "c\n"]), (2, "", "c"))

    def test_no_run(self) -> None:
        """What is no run's file is refused."""
        path = Path(self.mktemp())
        path.write_text('{"seed": 1}\n')
        self.assertRaises(NotARun, load, path)
        path.write_text("hello\n")
        self.assertRaises(NotARun, load, path)

    def test_no_scenario(self) -> None:
        """A scenario that is not there is refused; one of one's own is a file."""
        self.assertRaises(ValueError, module_of, "nonsense")
        self.assertRaises(ValueError, module_of, "/nowhere/mine.py")
        path = Path(self.mktemp()).with_suffix(".py")
        path.write_text("def play(sim, count):\n    sim.clients.batch(count)\n    sim.run_for(1)\n")
        result = play(Run(1, str(path), clients=2))
        self.assertEqual((result.failure, result.reasons), (None, {"left": 2}))

    def test_a_quiet_hour(self) -> None:
        """In a night players come now and then, and all play; the game servers that nobody needs are stopped."""
        result = play(Run(3, "night", clients=20), keep_trace=True)
        self.assertEqual((result.failure, sum(result.reasons.values())), (None, 20))
        self.assertGreater(result.virtual, 3600)
        words = [line.split() for line in result.lines]
        started = sum(line[1:3] == ["spawn", "echo"] for line in words)
        ended = sum(line[1] == "end" and line[2].startswith("echo") for line in words)
        self.assertGreater(ended, 1)
        self.assertGreaterEqual(started, 1)

    def test_a_fault_taken_away_leaves_the_others(self) -> None:
        """Each has its own chance."""
        self.assertEqual(draw(3, 5, 10.0), [f for f in draw(3, 6, 10.0) if f.number < 5])

    def test_code_makes_the_run(self) -> None:
        """It is production code that runs: one constant of a session's code changed is another trace."""
        before = play(Run(9, clients=5)).sha256
        code = SessionSteps._tell_waiting.__code__
        changed = tuple(False if value is True else value for value in code.co_consts)
        self.assertNotEqual(changed, code.co_consts)
        function = FunctionType(
            code.replace(co_consts=changed), SessionSteps._tell_waiting.__globals__
        )
        self.patch(SessionSteps, "_tell_waiting", function)
        self.assertNotEqual(play(Run(9, clients=5)).sha256, before)


class ShrinkingTests(SynchronousTestCase):
    def test_a_lost_release(self) -> None:
        """A slot that is not given back when its player leaves the queue is found, and few faults and clients show it;
        the test that is written fails as long as the fault is there."""
        release = Placement.release

        def forgets(self: Placement, session: str) -> None:
            seat = self._seats.get(session)
            if seat is None or seat.state != "queued":
                release(self, session)

        failing = None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Placement, "release", forgets)
            for seed in range(1000):
                result = play(drawn(seed, "churn", clients=20))
                if result.failure is not None:
                    failing = result
                    break
            assert failing is not None
            small = Shrinker(failing.run).shrink()
            self.assertLessEqual(len(small.run.faults), 3)
            self.assertLessEqual(small.run.clients - len(small.run.left_out), 2)
            written: dict[str, object] = {}
            exec(as_test(small), written)
            test = written[f"test_seed_{small.run.seed}"]
            self.assertRaises(AssertionError, test)
        test()  # type: ignore[operator]  # and does not without it

    def test_what_does_not_fail(self) -> None:
        """It cannot be made small."""
        self.assertRaises(ValueError, Shrinker, Run(1, clients=1))

    def test_signature(self) -> None:
        """Numbers and ids do not make another failure; other words do."""
        self.assertEqual(
            signature("session 0a1b2c3d4e ended 2 times\n at 3"),
            signature("session 99aabbccdd ended 3 times\n at 4"),
        )
        self.assertNotEqual(signature("session lost"), signature("slot lost"))


class SoakTests(SynchronousTestCase):
    def test_in_processes_of_their_own(self) -> None:
        """The same runs, wherever they happen."""
        plan = Soak(first=40, count=4, clients=10)
        tally = soak(plan, jobs=2, hash_seed="3")
        self.assertEqual((tally.runs, tally.failed), (4, 0))
        self.assertEqual(tally.hashes[41], play(plan.run_of(41)).sha256)

    def test_every_scenario_has_its_turn(self) -> None:
        """With one proxy and with two; that which takes long has one run of a hundred, and its faults all the time."""
        runs = [Soak(first=7).run_of(seed) for seed in range(7, 2407)]
        counts = Counter((run.scenario, run.proxies) for run in runs)
        self.assertEqual(set(counts), {(s, n) for s in (*SCENARIOS, "night") for n in (1, 2)})
        nights = [run for run in runs if run.scenario == "night"]
        self.assertEqual(len(nights), 24)
        self.assertGreater(max(fault.at for run in nights for fault in run.faults), 3_000_000_000)

    def test_what_never_happened(self) -> None:
        """After many runs, a fault that never did anything is told, and that no connection was ever refused."""
        tally = Tally(runs=10_000)
        missing = ["reset", SYN_REFUSED]
        tally.reached.update({name: 1 for name in EXPECTED if name not in missing})
        self.assertEqual(tally.never(), missing)
        self.assertEqual(replace(tally, runs=10).never(), [])

"""Making a failing run small: the same failure with the fewest faults, clients and frames."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from random import Random
from typing import Final, TypeVar

from gameproxy.simulation.chance import stream
from gameproxy.simulation.faults import Fault
from gameproxy.simulation.kernel import MICROSECONDS
from gameproxy.simulation.runs import FAULT_SPAN, Result, Run, play

T = TypeVar("T")
SIMPLE: Final = ("batch", "connect", "small-farm", "elsewhere", "one-place")
"""Scenarios that may show a failure of another with fewer clients."""
SOONER: Final = 20
"""By how much sooner faults come that are to meet few clients."""
SIMPLE_CLIENTS: Final = 8
"""With so many at most."""
FEW_FAULTS: Final = 3
FEW_CLIENTS: Final = 2
"""A run with so many is small."""
SOME_CLIENTS: Final = 13
"""Of more than that, at first fewer are tried."""
TIME: Final = 20.0
"""Seconds of processor time that shrinking may take."""
DRAWING: Final = 0.4
"""What of that is kept for drawing small runs, if leaving out has not led to one."""
_NAMES: Final = re.compile(r"(?<=game server )\S+|\b[0-9a-f]{8,}\b|\d+(?:\.\d+)?")


def signature(failure: str) -> str:
    """What two failures have in common that are the same: the first line, without numbers and names."""
    return _NAMES.sub("N", failure.partition("\n")[0])


class Shrinker:
    """Makes a run small.

    :param run: one that fails.
    :param time_limit: seconds of processor time.
    :param told: called with each smaller run that fails in the same way.
    :ivar runs: how many were tried.
    """

    def __init__(
        self,
        run: Run,
        time_limit: float = TIME,
        told: Callable[[Run], object] = lambda run: None,
    ) -> None:
        first = play(run)
        if first.failure is None:
            raise ValueError("this run does not fail")
        self.best: Result = first
        self._first = run
        self.runs = 1
        self._signature = signature(first.failure)
        self._told = told
        self._end = time.process_time() + time_limit
        self._deadline = self._end - time_limit * DRAWING

    def shrink(self) -> Result:
        """The smallest run that was found, and what comes of it."""
        self._try_few_clients()
        self._shorten_sites()
        self._shorten_faults()
        self._leave_clients_out()
        self._try_few_clients()
        self._shorten_faults()
        self._deadline = self._end
        if not self._is_small():
            self._draw_small_ones()
            self._shorten_sites()
            self._shorten_faults()
        self._shorten_frames()
        return self.best

    def _try_few_clients(self) -> None:
        """Few may do, perhaps in a simple scenario: this takes a moment to try, and saves long searches."""
        run = self.best.run
        soon = tuple(replace(fault, at=fault.at // SOONER) for fault in run.faults)
        for clients in (0, 1, 2, 8, 20):
            others = SIMPLE if clients <= SIMPLE_CLIENTS else ()
            for scenario in (run.scenario, *others):
                few = replace(run, scenario=scenario, clients=clients, left_out=frozenset())
                if clients < self._clients and (
                    self._fails(few) or self._fails(replace(few, faults=soon))
                ):
                    return

    def _is_small(self) -> bool:
        return len(self.best.run.faults) <= FEW_FAULTS and self._clients <= FEW_CLIENTS

    def _draw_small_ones(self) -> None:
        """Draw small runs with the kinds of faults of this one, ever smaller ones, until one that fails is small.

        Where no part of a run can be left out, its faults and clients may still have met by chance: few, at other
        times, may do.
        """
        big = self.best.run
        kinds = [fault.kind for fault in (*big.faults, *self._first.faults)]
        few = FEW_CLIENTS + 1
        for number in count():
            chance = stream(big.seed, "small", number)
            fewer = max(few, min(self._clients, SOME_CLIENTS))
            faults = [
                Fault(fault, _sooner(chance), kinds[chance.randrange(len(kinds))])
                for fault in range(chance.randrange(min(FEW_FAULTS, len(kinds)) + 1))
            ]
            scenarios = (big.scenario, big.scenario, *SIMPLE)
            small = replace(
                big,
                seed=chance.getrandbits(32),
                scenario=scenarios[chance.randrange(len(scenarios))],
                clients=chance.randrange((few, fewer)[chance.randrange(2)]),
                left_out=frozenset(),
                faults=tuple(sorted(faults, key=lambda fault: (fault.at, fault.number))),
                sites=big.sites if chance.randrange(2) else (),
            )
            self._fails(small)
            if self._is_small() or self._is_over():
                return

    @property
    def _clients(self) -> int:
        return self.best.run.clients - len(self.best.run.left_out)

    def _shorten_faults(self) -> None:
        def without(faults: Sequence[object]) -> Run:
            return replace(self.best.run, faults=tuple(faults))  # type: ignore[arg-type]  # they are its own

        self._keep_few(self.best.run.faults, without)

    def _shorten_sites(self) -> None:
        self._keep_few(
            self.best.run.sites, lambda sites: replace(self.best.run, sites=tuple(sites))
        )

    def _leave_clients_out(self) -> None:
        everybody = range(self.best.run.clients)
        there = [number for number in everybody if number not in self.best.run.left_out]

        def with_only(numbers: Sequence[int]) -> Run:
            return replace(self.best.run, left_out=frozenset(everybody) - frozenset(numbers))

        self._keep_few(there, with_only)

    def _shorten_frames(self) -> None:
        for most in (0, 1, 2, 4):
            if self._fails(replace(self.best.run, frames_max=most)):
                return

    def _keep_few(self, items: Sequence[T], made_of: Callable[[Sequence[T]], Run]) -> None:
        """Delta debugging (Zeller and Hildebrandt, 2002): keep a part alone, or leave one out; ever smaller parts."""
        items = list(items)
        if items and self._fails(made_of([])):
            return
        parts = 2
        while len(items) >= 2:
            size = -(-len(items) // parts)
            begins = range(0, len(items), size)
            alone = [(items[begin : begin + size], 2) for begin in begins]
            without = [
                ([*items[:begin], *items[begin + size :]], max(parts - 1, 2)) for begin in begins
            ]
            for fewer, next_parts in [*alone, *without] if parts > 2 else alone:
                if self._fails(made_of(fewer)):
                    items, parts = fewer, next_parts
                    break
            else:
                if parts >= len(items):
                    return
                parts = min(2 * parts, len(items))

    def _is_over(self) -> bool:
        return time.process_time() > self._deadline

    def _fails(self, run: Run) -> bool:
        """Whether a run fails in the same way; it is the best then."""
        if self._is_over():
            return False
        self.runs += 1
        result = play(run)
        if result.failure is None or signature(result.failure) != self._signature:
            return False
        self.best = result
        self._told(run)
        return True


def _sooner(chance: Random) -> int:
    """When a fault happens, in microseconds: mostly soon, as few clients have soon played."""
    span = (1.0, 3.0, FAULT_SPAN)[chance.randrange(3)]
    return chance.randrange(int(span * MICROSECONDS))


def as_test(result: Result) -> str:
    """A pytest case that fails as long as a run does."""
    run = result.run
    faults = "".join(
        f"            Fault({fault.number}, {fault.at}, {fault.kind!r}),\n" for fault in run.faults
    )
    listed = f"(\n{faults}        )" if faults else "()"
    there = [number for number in range(run.clients) if number not in run.left_out]
    return f'''"""Found by simulation: {signature(result.failure or "")}"""

from gameproxy.simulation.faults import Fault
from gameproxy.simulation.runs import Run, play


def test_seed_{run.seed}() -> None:
    """Clients {there} of {run.clients}, {len(run.faults)} faults."""
    run = Run(
        seed={run.seed},
        scenario={run.scenario!r},
        clients={run.clients},
        proxies={run.proxies},
        sites={run.sites!r},
        frames_max={run.frames_max},
        left_out=frozenset(range({run.clients})) - frozenset({there}),
        faults={listed},
    )
    assert play(run).failure is None
'''

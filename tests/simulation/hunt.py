"""Hunting for the bugs of the zoo: the first seed that shows each, the same failure again, and a small run of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import count, islice

from pytest import MonkeyPatch

from gameproxy.simulation.runs import Result, play
from gameproxy.simulation.shrinking import Shrinker
from gameproxy.simulation.soaking import Soak
from tests.simulation.zoo import Bug

SEEDS_MAX = 1000
SHRINKING_TIME = 20.0


@dataclass(frozen=True)
class Catch:
    """What a hunt has brought.

    :param runs: how many it took.
    :param result: the failing run.
    :param again: whether it failed in the same way again, to the byte of its trace.
    :param small: what is left of it when all that it does not need is left out.
    :param seconds: of processor time that making it small has taken.
    """

    bug: Bug
    runs: int
    result: Result
    again: bool
    small: Result
    seconds: float

    @property
    def faults(self) -> int:
        return len(self.small.run.faults)

    @property
    def clients(self) -> int:
        """How many are left, beside those that faults bring."""
        return self.small.run.clients - len(self.small.run.left_out)

    @property
    def is_as_it_should(self) -> bool:
        """Whether it can be had again, and is as small as it must be."""
        return self.again and self.faults <= 3 and self.clients <= self.bug.clients

    @property
    def message(self) -> str:
        return (self.result.failure or "").partition("\n")[0]


def hunt(bug: Bug, most: int = SEEDS_MAX, shrinking: float = SHRINKING_TIME) -> Catch | None:
    """Play the runs of a soak until one fails; ``None``: none of so many does."""
    plan = Soak()
    with MonkeyPatch.context() as patch:
        bug.plant(patch)
        for seed in islice(count(), most):
            result = play(plan.run_of(seed))
            if result.failure is None:
                continue
            again = play(result.run)
            same = (again.failure, again.sha256) == (result.failure, result.sha256)
            begin = time.process_time()
            small = Shrinker(result.run, shrinking).shrink()
            return Catch(bug, seed + 1, result, same, small, time.process_time() - begin)
    return None

"""Many runs, one after another, in several processes, until a time is over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gameproxy.simulation.faults import KINDS
from gameproxy.simulation.files import as_json, from_json
from gameproxy.simulation.network import SYN_LOST, SYN_REFUSED
from gameproxy.simulation.runs import Run, drawn, play
from gameproxy.sites import SITES

SCENARIOS: Final = (
    "connect",
    "churn",
    "full-farm",
    "batch",
    "stampede",
    "crash-loop",
    "slow-readers",
    "rolling-restart",
    "reconnect-storm",
    "elsewhere",
    "small-farm",
    "limits",
)
"""Those that have their turn."""
RARE: Final = "night"
RARELY: Final = 100
"""One that takes as long as many others, and of how many runs it has one."""
EXPECTED: Final = (
    *KINDS,
    *SITES,
    *(f"{site}, disturbed" for site in SITES),
    SYN_LOST,
    SYN_REFUSED,
)
"""What many runs must have reached."""
FAILURES_KEPT: Final = 100
ENOUGH_RUNS: Final = 20
"""Runs for each kind of fault after which one that never did anything is a fault of the soak's own."""


@dataclass(slots=True)
class Tally:
    """What came of many runs.

    :ivar runs: how many there were.
    :ivar failures: those that failed, with what did not hold; the first of them.
    :ivar reached: how often each fault did something.
    :ivar hashes: the hash of each run's trace, by seed.
    """

    runs: int = 0
    events: int = 0
    virtual: float = 0.0
    failed: int = 0
    failures: list[tuple[Run, str]] = field(default_factory=list)
    reached: Counter[str] = field(default_factory=Counter)
    hashes: dict[int, str] = field(default_factory=dict)

    def never(self) -> list[str]:
        """The faults that never did anything, the sites that were never come by or never disturbed, and what never came
        of connections that were made, when there were enough runs to expect all."""
        if self.runs < ENOUGH_RUNS * len(KINDS):
            return []
        return [name for name in EXPECTED if not self.reached[name]]


@dataclass(frozen=True, slots=True)
class Soak:
    """Which runs.

    :param first: the first seed; the others follow it.
    :param count: how many; ``None``: as many as there is time for.
    :param seconds: of real time; ``None``: as long as it takes.
    :param scenarios: in turn, but for :data:`RARE`.
    :param proxies: how many each world has, in turn.
    """

    first: int = 0
    count: int | None = None
    seconds: float | None = None
    scenarios: Sequence[str] = SCENARIOS
    clients: int = 50
    faults: int = 8
    proxies: Sequence[int] = (1, 2)

    def run_of(self, seed: int) -> Run:
        """The run of a seed."""
        number = seed - self.first
        scenario = self.scenarios[number % len(self.scenarios)]
        if number % RARELY == RARELY - 1:
            scenario = RARE
        proxies = self.proxies[number // len(self.scenarios) % len(self.proxies)]
        return drawn(seed, scenario, self.clients, self.faults, proxies)


def soak_here(plan: Soak, share: int = 0, shares: int = 1) -> Iterator[dict[str, Any]]:
    """Have this process's share of the runs happen.

    :return: what came of each, for JSON.
    """
    deadline = None if plan.seconds is None else time.monotonic() + plan.seconds
    seed = plan.first + share
    while plan.count is None or seed < plan.first + plan.count:
        if deadline is not None and time.monotonic() > deadline:
            return
        result = play(plan.run_of(seed))
        yield {
            "run": as_json(result.run) if result.failure else None,
            "seed": seed,
            "failure": result.failure,
            "sha256": result.sha256,
            "events": result.events,
            "virtual": result.virtual,
            "reached": result.reached,
        }
        seed += shares


def soak(
    plan: Soak,
    jobs: int = 1,
    hash_seed: str | None = None,
    python: str = sys.executable,
    told: Callable[[Tally], object] = lambda tally: None,
) -> Tally:
    """Have all runs happen, in processes of their own.

    :param jobs: how many processes.
    :param hash_seed: their PYTHONHASHSEED; ``None``: chance, as usual.
    :param python: which Python runs them.
    :param told: called after each run.
    """
    environment = dict(os.environ)
    if hash_seed is not None:
        environment["PYTHONHASHSEED"] = hash_seed
    words = json.dumps(_as_words(plan))
    children = [
        subprocess.Popen(  # noqa: S603 - this very module
            [python, "-m", "gameproxy.simulation.soaking", words, str(share), str(jobs)],
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for share in range(jobs)
    ]
    tally = Tally()
    try:
        for line in _lines_of(children):
            _add(tally, json.loads(line))
            told(tally)
        for child in children:
            if child.wait() != 0:
                raise RuntimeError(f"a soaking process ended with {child.returncode}")
    finally:
        for child in children:
            child.kill()
            child.wait()
    return tally


def _as_words(plan: Soak) -> dict[str, Any]:
    return {name: getattr(plan, name) for name in plan.__dataclass_fields__}


def _lines_of(children: Sequence[subprocess.Popen[str]]) -> Iterator[str]:
    """The lines of all, as they come, as long as one goes on."""
    import selectors

    with selectors.DefaultSelector() as selector:
        for child in children:
            assert child.stdout is not None
            selector.register(child.stdout, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                line = key.fileobj.readline()  # type: ignore[union-attr]  # a text file
                if line:
                    yield line
                else:
                    selector.unregister(key.fileobj)


def _add(tally: Tally, found: dict[str, Any]) -> None:
    tally.runs += 1
    tally.events += found["events"]
    tally.virtual += found["virtual"]
    tally.reached.update(found["reached"])
    tally.hashes[found["seed"]] = found["sha256"]
    if found["failure"]:
        tally.failed += 1
        if len(tally.failures) < FAILURES_KEPT:
            tally.failures.append((from_json(found["run"]), found["failure"]))


if __name__ == "__main__":
    for outcome in soak_here(Soak(**json.loads(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])):
        print(json.dumps(outcome), flush=True)

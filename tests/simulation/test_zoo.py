"""A few bugs of the zoo; ``make soak`` hunts for all."""

from __future__ import annotations

import pytest

from gameproxy.simulation.runs import Run, play
from tests.simulation.hunt import hunt
from tests.simulation.zoo import ZOO

FAST = (
    "over-too-soon",
    "admit-not-checked",
    "reserved-slot-kept",
    "early-bytes-unbounded",
    "reserved-frames-pass",
    "ticket-good-again",
)
"""Those that show in one of the first runs."""


@pytest.mark.timeout(300)  # seconds each on an idle core
@pytest.mark.parametrize("name", FAST)
def test_caught(name: str) -> None:
    """A missing safeguard is found, found again, and shown by a small run."""
    bug = next(bug for bug in ZOO if bug.name == name)
    catch = hunt(bug, most=50, shrinking=60)
    assert catch is not None
    assert catch.is_as_it_should, catch


@pytest.mark.parametrize("name", ["last-come-first-served", "released-before-gone"])
def test_caught_in_one_place(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What shows only where a game server is full, or a queue long, does so with a few players and no faults."""
    runs = [Run(seed, "one-place", clients=8) for seed in range(20)]
    assert play(runs[0]).failure is None
    next(bug for bug in ZOO if bug.name == name).plant(monkeypatch)
    assert any(play(run).failure is not None for run in runs)


def test_enough_bugs() -> None:
    """None is left out by mistake, and none is there twice."""
    names = [bug.name for bug in ZOO]
    assert len(names) == len(set(names)) >= 15

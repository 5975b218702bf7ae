"""A few bugs of the zoo; ``make soak`` hunts for all."""

from __future__ import annotations

import pytest

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


def test_enough_bugs() -> None:
    """None is left out by mistake, and none is there twice."""
    names = [bug.name for bug in ZOO]
    assert len(names) == len(set(names)) >= 15

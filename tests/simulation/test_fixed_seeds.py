"""Three hundred worlds, always the same ones: whatever goes wrong in them, all holds."""

from __future__ import annotations

import pytest

from gameproxy.simulation.soaking import Soak, soak

SEEDS = 300
PARTS = 12


@pytest.mark.timeout(600)  # five seconds on an idle core
@pytest.mark.parametrize("part", range(PARTS))
def test_fixed_seeds(part: int) -> None:
    """Everything comes to rest, and nothing is left."""
    count = SEEDS // PARTS
    tally = soak(Soak(first=part * count, count=count))
    assert tally.failures == []
    assert tally.runs == count

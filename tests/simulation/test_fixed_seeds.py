"""Three hundred worlds, always the same ones: whatever goes wrong in them, all holds."""

from __future__ import annotations

import pytest

from gameproxy.simulation.soaking import Soak, soak

SEEDS = 300


@pytest.mark.timeout(600)  # under a minute on two cores; a busy machine may take longer
def test_fixed_seeds() -> None:
    """Everything comes to rest, and nothing is left."""
    tally = soak(Soak(count=SEEDS), jobs=2)
    assert tally.failures == []
    assert tally.runs == SEEDS

"""Small runs of the faults that soaks have found in the proxy, beside what the farm's own tests have of them."""

from __future__ import annotations

import pytest

from gameproxy.simulation.faults import Fault
from gameproxy.simulation.runs import Run, play

STOOD_STILL = Run(
    seed=1837,
    scenario="churn",
    clients=20,
    left_out=frozenset(range(20)) - {15, 18},
    frames_max=0,
    faults=(
        Fault(2, 7159713, "database-slow"),
        Fault(6, 7933294, "backup-restored"),
        Fault(7, 8801377, "proxy-hangs"),
    ),
)
"""A session ends after a backup was made; its proxy stands still from then until the backup is put back, which has the
proxy's last sign of life: two slots were left."""
NOT_RECORDED = Run(
    seed=1899,
    scenario="reconnect-storm",
    clients=50,
    left_out=frozenset(range(25, 50)),
    proxies=2,
    sites=("store: a pause after a transaction", "keeper: a late start"),
    faults=(Fault(4, 1193164, "backup-moved-back"),),
)
"""A backup has a game server that is ready, and not yet which process it is: nobody saw it end, and its row stayed."""


@pytest.mark.parametrize("run", [STOOD_STILL, NOT_RECORDED], ids=lambda run: f"seed-{run.seed}")
def test_found(run: Run) -> None:
    """All holds, and each of its faults does what it did."""
    result = play(run)
    assert result.failure is None
    assert all(fault.kind in result.reached for fault in run.faults)

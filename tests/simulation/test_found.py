"""Small runs of what soaks have found: faults of the proxy, beside what the farm's own tests have of them, and of the
simulation itself."""

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

RELEASED_BEFORE = Run(
    seed=45,
    scenario="elsewhere",
    clients=4,
    left_out=frozenset({0, 2}),
    proxies=2,
    frames_max=1,
    faults=(Fault(11, 190991, "proxy-hangs"), Fault(12, 390991, "reconnect-storm")),
)
"""A proxy stands still when it has released a slot and the row is not gone yet, and puts its rows back after that: the
ledger counted the session that is over, and the game server had one too many. First seen with seed 900."""

NEVER_RECORDED = Run(
    seed=7,
    scenario="connect",
    clients=1,
    frames_max=0,
    sites=("store: a pause after a transaction",),
    faults=(Fault(0, 1000, "impostor"), Fault(1, 200_000, "proxy-killed")),
)
"""A proxy is killed when it has started a game server and not yet written which process that is, and the game server is
none of those that end by themselves: nobody knew its process, and it went on without a row. First seen with seed
3342."""
HALF_A_BUFFER = Run(
    seed=3136,
    scenario="slow-readers",
    clients=50,
    left_out=frozenset(range(50)) - {20, 23, 24},
    faults=(Fault(4, 757852, "cut-one-way"),),
)
"""A player who reads nothing for a while is cut off from sending, so that less than a full buffer waits for him, which
holds up nobody: he was to take it as soon as if it did."""
IMPOSTOR_WITHOUT_DATABASE = Run(
    seed=25,
    scenario="connect",
    clients=1,
    frames_max=0,
    faults=(Fault(0, 1000, "impostor"), Fault(1, 150_000, "database-deleted")),
)
"""What passes for a game server finds no database in which to say that it is ready: that was taken for the proxy's
fault."""
DELETED_BEFORE_THE_FIRST_LOOK = Run(
    seed=8480,
    scenario="reconnect-storm",
    clients=1,
    frames_max=0,
    faults=(Fault(5, 468871, "impostor"), Fault(7, 6030465, "database-deleted")),
)
"""The database is deleted when a proxy has just started, and has not yet looked which game servers there are: one that
never gets ready went on without a row."""


@pytest.mark.parametrize(
    "run",
    [
        STOOD_STILL,
        NOT_RECORDED,
        RELEASED_BEFORE,
        NEVER_RECORDED,
        HALF_A_BUFFER,
        IMPOSTOR_WITHOUT_DATABASE,
        DELETED_BEFORE_THE_FIRST_LOOK,
    ],
    ids=lambda run: f"seed-{run.seed}",
)
def test_found(run: Run) -> None:
    """All holds, and each of its faults does what it did."""
    result = play(run)
    assert result.failure is None
    assert all(fault.kind in result.reached for fault in run.faults)

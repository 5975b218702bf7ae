"""Limits are enforced: a few players break them, and nobody else is ended by one."""

from gameproxy.config import Config, LimitsConfig
from gameproxy.simulation.clients import Client, Plan
from gameproxy.simulation.world import Simulation, default_config

RATE = 2.0
"""Frames a second that a player may send."""
PAUSE = 27.0
"""Seconds for which a fault may hold back what a player sends, and a little more: the burst is what comes in them."""
IDLE = 40.0
"""Seconds in which a player must send something."""
BROKEN = ("throttled", "limit_exceeded", "idle")
HONEST = Plan(frames=int(1.5 * RATE * PAUSE), gap=1 / RATE)
SILENT = Plan(frames=2, stays=True)
GREEDY = Plan(frames=int(1.5 * RATE * PAUSE), gap=0.001)


def config() -> Config:
    """All limits, enforced."""
    limits = LimitsConfig.model_validate(
        {
            "connections_per_second": {"mode": "enforce", "rate": 100.0, "burst": 1000.0},
            "sessions_per_address": {"mode": "enforce", "rate": 8.0},
            "frames_per_second": {"mode": "enforce", "rate": RATE, "burst": RATE * PAUSE},
            "bytes_per_second": {"mode": "enforce", "rate": 1e5, "burst": 4e6},
            "idle_seconds": {"mode": "enforce", "rate": IDLE},
        }
    )
    return default_config().model_copy(update={"limits": limits})


def play(sim: Simulation, count: int) -> None:
    """``count`` players: every tenth says nothing after a while, and every tenth sends far too much."""
    plans = {0: SILENT, 5: GREEDY}
    players = sim.clients.make(count, lambda number: plans.get(number % 10, HONEST))
    for player in players:
        sim.at(player.chance("comes") * 2.0, player.connect)
    sim.run_until(lambda: players.have_ended, 300, "all have left, or were ended")
    for player in sim.all_clients:
        if player.ending in BROKEN and not _breaks(player, player.ending):
            raise sim.failure(
                f"client {player.number} keeps all limits, and ended: {player.ending}"
            )
    if not sim.has_faults:
        for player in players:
            _assert_ended(sim, player)


def _breaks(player: Client, ending: str) -> bool:
    """Whether a client can be to blame for such an end."""
    plan = player.plan
    if ending == "limit_exceeded":
        return plan.gap < 1 / RATE and plan.frames > RATE * PAUSE
    return ending == "idle" and plan.stays


def _assert_ended(sim: Simulation, player: Client) -> None:
    """Who breaks a limit was ended by that."""
    for plan, ending in ((SILENT, "idle"), (GREEDY, "limit_exceeded")):
        if player.plan == plan and not player.left_out and player.ending != ending:
            raise sim.failure(f"client {player.number} was to end with {ending}: {player.ending}")

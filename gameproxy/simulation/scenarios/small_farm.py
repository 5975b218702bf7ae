"""Game servers with one place each: whoever is in is alone, and most wait."""

from gameproxy.config import Config
from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation, default_config

SERVERS = 4
GAP = 0.2
"""Seconds between two that come, on average."""


def config() -> Config:
    """Four game servers of one."""
    usual = default_config()
    game = usual.games[0].model_copy(update={"capacity": 1, "max_servers": SERVERS})
    return usual.model_copy(update={"games": (game,)})


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    for player in players:
        sim.at(player.chance("comes") * GAP * count, player.connect)
    sim.run_until(lambda: players.have_ended, 300, "all have left")

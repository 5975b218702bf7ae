"""All game servers run on machines of their own, and no others can be started: who finds no place waits, or leaves."""

from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

STATE = "elsewhere.toml"
GAP = 0.12
"""Seconds between two that come, on average."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    for player in players:
        sim.at(player.chance("comes") * GAP * count, player.connect)
    sim.run_until(lambda: players.have_ended, 300, "all have left")

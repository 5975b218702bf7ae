"""All game servers run on machines of their own, and no others can be started: who finds no place waits, or leaves."""

from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

STATE = "elsewhere.toml"
TIME = 6.0
"""Seconds in which they come."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    for player in players:
        sim.at(player.chance("comes") * TIME, player.connect)
    sim.run_until(lambda: all(player.has_ended for player in players), 300, "all have left")

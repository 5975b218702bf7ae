"""One place for all, at the end of a bad line: one plays, and the others wait, in the order in which they came."""

from dataclasses import replace

from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

STATE = "one_place.toml"
GAP = 0.1
"""Seconds between two that come, on average, and between two frames of one: it plays when others have come."""
LOSS = 100
"""Of 1,000 packets between two machines: what is lost is late, and what was sent after it may be there before."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    sim.kernel.network.conditions.loss = LOSS
    players = sim.clients.make(count, lambda number: replace(plan_of(sim.seed, number), gap=GAP))
    for player in players:
        sim.at(player.chance("comes") * GAP * count, player.connect)
    sim.run_until(lambda: players.have_ended, 300, "all have left")

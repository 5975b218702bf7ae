"""An hour of quiet: players come now and then, and servers that nobody needs are stopped."""

from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

HOUR = 3600.0
FAULT_SPAN = HOUR


def play(sim: Simulation, count: int) -> None:
    """``count`` players in an hour."""
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    for player in players:
        sim.at(player.chance("comes") * HOUR, player.connect)
    sim.run_for(HOUR)
    sim.run_until(lambda: players.have_ended, 300, "all have left")

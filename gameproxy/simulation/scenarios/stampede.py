"""All players come in the same moment, as when a server opens."""

from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    players.connect_all()
    sim.run_until(lambda: players.have_ended, 300, "all have left")

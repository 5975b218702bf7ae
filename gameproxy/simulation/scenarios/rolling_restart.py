"""Each proxy in turn is asked to stop, and started again, while players come and go."""

from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

DRAIN = 8.0
"""Seconds that a proxy has to drain."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    for player in players:
        sim.at(player.chance("comes") * 15.0, player.connect)
    sim.run_for(1.0)
    for proxy in sim.proxies:
        if proxy.process.alive:
            proxy.stop()
            sim.run_for(DRAIN)
            proxy.kill()
        proxy.heal()
        sim.run_for(2.0)
    sim.run_until(lambda: players.have_ended, 300, "all have left")

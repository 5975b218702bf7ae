"""The proxy dies with everybody on it; all come again in the moment in which it is back."""

from gameproxy.simulation.clients import Plan
from gameproxy.simulation.world import Simulation


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, Plan(frames=5, stays=True))
    for player in players:
        sim.at(player.chance("comes") * 1.0, player.connect)
    sim.run_for(5.0)
    for proxy in sim.proxies:
        proxy.kill()
    sim.run_for(1.0)
    for proxy in sim.proxies:
        proxy.heal()
    sim.run_for(0.5)
    for player in players:
        if player.has_ended and not player.left_out:
            player.connect()
    sim.run_for(10.0)
    players.disconnect_all()
    sim.run_until(lambda: players.have_ended, 300, "all have left")

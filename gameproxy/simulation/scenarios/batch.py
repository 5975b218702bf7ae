"""Players come at once, in order; when all are in, they leave at once, in order."""

from gameproxy.simulation.world import Simulation


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.batch(count)
    if sim.has_faults:  # some may be sent away
        sim.run_for(10.0)
    else:
        sim.assert_reached(players, selection=True, server=True)
    players.disconnect_all()
    sim.run_until(lambda: players.have_ended, 60, "all have left")

"""A bad build: the first game servers end before they are ready, then a good one comes."""

from gameproxy.simulation.programs import Temper
from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

BAD = 4
"""Game servers that end."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players, who come again when they were sent away."""
    bad = Temper(start_delay=2.0, exits=0.3)
    sim.temper_of = lambda number: bad if number < BAD else Temper()
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    for player in players:
        sim.at(player.chance("comes") * 5.0, player.connect)
    for _ in range(40):
        sim.run_for(3.0)
        missing = [one for one in players if one.has_ended and not one.was_welcomed]
        if not missing and players.have_ended:
            return
        for player in missing:
            if not player.left_out:
                player.connect()
    if not sim.has_faults:
        raise sim.failure("some never get in")

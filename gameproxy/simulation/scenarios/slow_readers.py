"""Some players send much and read nothing for a while: nobody else is to notice."""

from dataclasses import replace

from gameproxy.simulation.clients import Clients, Plan
from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

SLOW = Plan(frames=150, size=3000, gap=0.002, stays=True, reads=False)
TIME = 5.0
"""Seconds in which they read nothing."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players, of whom every fifth reads nothing."""

    def plan(number: int) -> Plan:
        return SLOW if number % 5 == 0 else replace(plan_of(sim.seed, number), leaving="close")

    players = sim.clients.make(count, plan)
    for player in players:
        sim.at(player.chance("comes") * 2.0, player.connect)
    others = Clients([player for player in players if player.plan.reads])
    sim.run_until(lambda: others.have_ended, 300, "the others have left")
    sim.run_for(TIME)
    for player in players:
        player.read()
    sim.run_for(TIME)
    players.disconnect_all()
    sim.run_until(lambda: players.have_ended, 300, "all have left")

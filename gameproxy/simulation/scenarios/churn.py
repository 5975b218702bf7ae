"""Players come and go in rounds: how many come and how many leave in each is distributed normally."""

from gameproxy.simulation.chance import normal, stream
from gameproxy.simulation.scenarios.connect import plan_of
from gameproxy.simulation.world import Simulation

ROUNDS = 10
ROUND = 1.0
"""Seconds of a round."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players, in ten rounds of a second."""
    chance = stream(sim.seed, "churn")
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    mean = count / ROUNDS
    to_come = list(players)
    for round_ in range(ROUNDS):
        adds = len(to_come) if round_ == ROUNDS - 1 else normal(chance, mean, mean / 3)
        for player in to_come[:adds]:
            sim.at(round_ * ROUND + player.chance("comes") * ROUND, player.connect)
        del to_come[:adds]
        removes = normal(chance, mean / 2, mean / 6)
        for _ in range(removes):
            leaver = players[chance.randrange(count)]
            sim.at(round_ * ROUND + leaver.chance("leaves") * ROUND, leaver.disconnect)
    sim.run_for(ROUNDS * ROUND)
    sim.run_until(lambda: players.have_ended, 300, "all have left")

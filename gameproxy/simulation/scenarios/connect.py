"""Players come one after another, play, and leave when all their frames have come back."""

from gameproxy.simulation.chance import stream
from gameproxy.simulation.clients import Plan
from gameproxy.simulation.world import Simulation

GAP = 0.05
"""Seconds between two that come, on average."""


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, lambda number: plan_of(sim.seed, number))
    for player in players:
        sim.at(player.chance("comes") * GAP * count, player.connect)
    sim.run_until(lambda: players.have_ended, 300, "all have left")


def plan_of(seed: int, number: int) -> Plan:
    """What a player does, drawn from a stream of its own."""
    chance = stream(seed, "plan", number)
    return Plan(
        frames=1 + chance.randrange(10),
        size=9 + chance.randrange(1200),
        gap=(1_000 + chance.randrange(50_000)) / 1e6,
        leaving=("close", "close", "end", "reset")[chance.randrange(4)],
    )

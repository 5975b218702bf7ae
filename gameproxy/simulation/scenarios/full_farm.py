"""More players than there is room for: they wait in the queue, and get in as others leave."""

from gameproxy.config import Config
from gameproxy.simulation.clients import Plan
from gameproxy.simulation.world import Simulation, default_config

CAPACITY = 4
SERVERS = 3


def config() -> Config:
    """Three game servers of four."""
    usual = default_config()
    game = usual.games[0].model_copy(update={"capacity": CAPACITY, "max_servers": SERVERS})
    return usual.model_copy(update={"games": (game,)})


def play(sim: Simulation, count: int) -> None:
    """``count`` players."""
    players = sim.clients.make(count, Plan(frames=20, gap=0.05))
    for player in players:
        sim.at(player.chance("comes") * 1.0, player.connect)
    sim.run_until(lambda: players.have_ended, 300, "all have left")
    if not sim.has_faults:
        for player in players:
            if not player.left_out and not player.is_done:
                raise sim.failure(f"client {player.number} has not played: {player.ending}")

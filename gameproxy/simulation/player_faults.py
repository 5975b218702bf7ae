"""What players do that they should not, or not so."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Final

from gameproxy.simulation.clients import Plan
from gameproxy.simulation.fault_timing import Act, later, leaving, short
from gameproxy.simulation.kernel import MICROSECONDS

if TYPE_CHECKING:
    from gameproxy.simulation.world import Simulation


def _player(plan: Plan) -> Act:
    def come(world: Simulation, chance: Random) -> bool:
        own = replace(plan, gap=(1 + chance.randrange(50_000)) / MICROSECONDS)
        world.clients.make(1 + chance.randrange(3), own).connect_all()
        return True

    return come


def _stop_reading(world: Simulation, chance: Random) -> bool:
    """A player reads no more for a while, or for ever, while its game sends."""
    plan = Plan(frames=150, size=4000, gap=0.001, stays=True, reads=False, leaving=leaving(chance))
    client = world.clients.make(1, plan)[0]
    client.connect()
    if chance.randrange(2):
        later(world, 5 * MICROSECONDS + short(chance), client.disconnect)
    return True


def _hang_up(world: Simulation, chance: Random) -> bool:
    """A player leaves in one of the phases."""
    phases = ("connecting", "authenticating", "waiting", "playing")
    plan = Plan(
        frames=20,
        hangs_up=phases[chance.randrange(len(phases))],
        gap=chance.randrange(30_000) / MICROSECONDS,
        leaving=leaving(chance),
    )
    world.clients.make(1, plan).connect_all()
    return True


def _same_player_twice(world: Simulation, chance: Random) -> bool:
    """A player comes by ticket, and again while the first session goes on."""
    name = f"twin-{chance.getrandbits(32):08x}"
    plan = Plan(frames=3, gap=0.1, stays=True, leaving=leaving(chance))
    first, second = world.clients.make(2, plan, player=name)
    first.connect()
    later(world, chance.randrange(3 * MICROSECONDS), second.connect)
    return True


def _same_ticket_twice(world: Simulation, chance: Random) -> bool:
    """A player comes by ticket, and somebody who has seen the ticket comes by it too."""
    ticket = world.ticket(f"robbed-{chance.getrandbits(32):08x}")
    first, second = world.clients.make(2, Plan(frames=3, gap=0.1, leaving=leaving(chance)))
    first.auth = second.auth = ticket
    first.connect()
    later(world, chance.randrange(3 * MICROSECONDS), second.connect)
    return True


def _ban(world: Simulation, chance: Random) -> bool:
    """A player who plays is banned, and tries again."""
    playing = [client for client in world.all_clients if client.state == "playing"]
    if not playing or not world.has_database:
        return False
    client = playing[chance.randrange(len(playing))]
    world.ban(f"guest:{client.name}")

    def again() -> None:
        if client.state == "ended":
            client.connect()

    later(world, 3 * MICROSECONDS, again)
    return True


def _storm(world: Simulation, chance: Random) -> bool:
    """All who have gone come again at once."""
    gone = [
        client for client in world.all_clients if client.state == "ended" and client.connects < 4
    ]
    for client in gone:
        client.connect()
    return bool(gone)


KINDS: Final[dict[str, Act]] = {
    "stopped-reader": _stop_reading,
    "silent-player": _player(Plan(auth_delay=None)),
    "slow-player": _player(Plan(auth_delay=3.0)),
    "too-slow-player": _player(Plan(auth_delay=8.0)),
    "garbage": _player(Plan(sends="garbage")),
    "oversize": _player(Plan(sends="oversize")),
    "hang-up": _hang_up,
    "forged": _player(Plan(sends="forged", frames=6)),
    "eager": _player(Plan(frames=12, early=8, size=3000)),
    "too-eager": _player(Plan(frames=60, early=60, size=3000)),
    "same-ticket-twice": _same_ticket_twice,
    "same-player-twice": _same_player_twice,
    "ban": _ban,
    "reconnect-storm": _storm,
}

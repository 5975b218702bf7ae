"""What goes wrong on links, and with connections."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from gameproxy.simulation.fault_timing import Act, later, short
from gameproxy.simulation.kernel import MICROSECONDS
from gameproxy.simulation.machines import DESCRIPTORS_MAX
from gameproxy.simulation.network import Conditions

if TYPE_CHECKING:
    from gameproxy.simulation.sockets import SimSocket
    from gameproxy.simulation.world import Simulation

DRIPS: Final = 2000
"""Segments of a few bytes that a fault makes."""


def _clog(world: Simulation, chance: Random) -> bool:
    ways = _ways(world)
    source, target = ways[chance.randrange(len(ways))]
    network = world.kernel.network
    network.clog(source, target, 1000 + chance.randrange(500_000))
    later(world, short(chance), lambda: network.clog(source, target, 0))
    return True


def _cut_one_way(world: Simulation, chance: Random) -> bool:
    ways = _ways(world)
    _cut(world, chance, [ways[chance.randrange(len(ways))]])
    return True


def _cut_both_ways(world: Simulation, chance: Random) -> bool:
    links = _links(world)
    one, other = links[chance.randrange(len(links))]
    _cut(world, chance, [(one, other), (other, one)])
    return True


def _lossy(world: Simulation, chance: Random) -> bool:
    conditions = world.kernel.network.conditions
    conditions.loss = 50 + chance.randrange(300)
    later(world, short(chance), lambda: setattr(conditions, "loss", 0))
    return True


def _drip(world: Simulation, chance: Random) -> bool:
    """Segments of a few bytes, and writes that take less than all."""
    conditions = world.kernel.network.conditions
    conditions.drips = DRIPS
    conditions.drip = 1 + chance.randrange(8)
    conditions.short_writes = 1000
    usual = Conditions().short_writes
    later(world, short(chance), lambda: setattr(conditions, "short_writes", usual))
    return True


def _reset(world: Simulation, chance: Random) -> bool:
    sockets = _connections(world)
    if not sockets:
        return False
    sockets[chance.randrange(len(sockets))].break_connection()
    return True


def _out_of_descriptors(world: Simulation, chance: Random) -> bool:
    process = world.proxies[chance.randrange(len(world.proxies))].process
    process.descriptors_max = len(process.sockets) + chance.randrange(3)
    later(world, short(chance), lambda: setattr(process, "descriptors_max", DESCRIPTORS_MAX))
    return True


def _links(world: Simulation) -> list[tuple[str, str]]:
    """The machines that have anything to do with each other, by their addresses."""
    farm = world.farm_machine.address
    servers = [(farm, server.machine.address) for server in world.remote_servers.values()]
    return [(farm, world.clients_machine.address), *servers]


def _ways(world: Simulation) -> list[tuple[str, str]]:
    return [way for one, other in _links(world) for way in ((one, other), (other, one))]


def _cut(world: Simulation, chance: Random, ways: list[tuple[str, str]]) -> None:
    network = world.kernel.network
    delay = short(chance) if chance.randrange(4) else 20 * MICROSECONDS
    for source, target in ways:
        network.cut(source, target)
        later(world, delay, partial(network.mend, source, target))


def _connections(world: Simulation) -> list[SimSocket]:
    return [
        socket
        for machine in world.kernel.machines.values()
        for process in machine.processes.values()
        for socket in process.sockets.values()
        if socket.state in ("connected", "connecting")
    ]


KINDS: Final[dict[str, Act]] = {
    "clog": _clog,
    "cut-one-way": _cut_one_way,
    "cut-both-ways": _cut_both_ways,
    "loss": _lossy,
    "drip": _drip,
    "reset": _reset,
    "out-of-descriptors": _out_of_descriptors,
}

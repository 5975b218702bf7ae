"""What goes wrong in a simulated world, by name. Each fault has a stream of chance of its own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gameproxy.simulation import database_faults, network_faults, player_faults, process_faults
from gameproxy.simulation.chance import stream
from gameproxy.simulation.fault_timing import Act
from gameproxy.simulation.kernel import MICROSECONDS

if TYPE_CHECKING:
    from gameproxy.simulation.world import Simulation

KINDS: Final[dict[str, Act]] = {
    **network_faults.KINDS,
    **player_faults.KINDS,
    **process_faults.KINDS,
    **database_faults.KINDS,
}
"""All that can go wrong."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong.

    :param number: names its stream of chance.
    :param at: microseconds since the beginning.
    :param kind: one of :data:`KINDS`.
    """

    number: int
    at: int
    kind: str


def draw(seed: int, count: int, span: float, kinds: Iterable[str] | None = None) -> list[Fault]:
    """Some faults.

    :param span: seconds in which they happen.
    :param kinds: what may go wrong; ``None``: anything.
    """
    choice = sorted(kinds or KINDS)
    faults = []
    for number in range(count):
        chance = stream(seed, "fault", number)
        at = chance.randrange(int(span * MICROSECONDS))
        faults.append(Fault(number, at, choice[chance.randrange(len(choice))]))
    return sorted(faults, key=lambda fault: (fault.at, fault.number))


def schedule(world: Simulation, faults: Iterable[Fault]) -> None:
    """Have faults happen at their times, but none after the world is to heal."""
    for fault in faults:
        world.has_faults = True
        world.kernel.at(world.begun + fault.at, _happen, world, fault)


def _happen(world: Simulation, fault: Fault) -> None:
    if world.is_calm:
        return
    chance = stream(world.seed, "fault", fault.number, fault.kind)
    world.write("fault", fault.number, fault.kind)
    if KINDS[fault.kind](world, chance):
        world.reach(fault.kind)

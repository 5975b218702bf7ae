"""What a fault is to the world, and how long it lasts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING

from gameproxy.simulation.kernel import MICROSECONDS

if TYPE_CHECKING:
    from gameproxy.simulation.world import Simulation

Act = Callable[["Simulation", Random], bool]
"""Makes something go wrong now; tells whether there was anything to go wrong."""


def leaving(chance: Random) -> str:
    return ("close", "end", "reset")[chance.randrange(3)]


def short(chance: Random) -> int:
    """Up to two seconds, in microseconds."""
    return 10_000 + chance.randrange(2 * MICROSECONDS)


def long(chance: Random) -> int:
    """Up to twenty-five seconds, in microseconds."""
    return 10_000 + chance.randrange(25 * MICROSECONDS)


def later(world: Simulation, delay: int, call: Callable[[], object]) -> None:
    """Something that a fault has changed is to be as before, in ``delay`` microseconds."""

    def unless_calm() -> None:
        if not world.is_calm:
            call()

    world.kernel.after(delay, unless_calm)

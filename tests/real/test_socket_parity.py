"""Simulated sockets do what real ones do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.real.socket_behaviours import SCENES, RealWorld, Seen, SimulatedWorld, World


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_parity(scene: Callable[[World], Seen]) -> None:
    """A scene shows the same on loopback and in the simulation."""
    simulated_world, real_world = SimulatedWorld(), RealWorld()
    try:
        simulated = scene(simulated_world)
        for _ in range(3):  # a loaded machine may be late: what it says in the end counts
            real = scene(real_world)
            if real == simulated:
                break
    finally:
        simulated_world.close()
        real_world.close()
    assert simulated == real


def test_enough_scenes() -> None:
    """None is left out by mistake."""
    assert len(SCENES) >= 40

"""A simulated world heals, and all in it comes to rest: nothing may be left of what went wrong, or of who played."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Final

from gameproxy.simulation.invariants import left_of_the_dead, left_over
from gameproxy.simulation.machines import DESCRIPTORS_MAX

if TYPE_CHECKING:
    from gameproxy.simulation.world import Simulation

REST_TIME: Final = 120.0
"""Virtual seconds in which nothing may be left, when nobody plays."""
SETTLE_TIME: Final = 120.0
"""Virtual seconds in which all must come to rest when faults have stopped."""
CALM_TIME: Final = 20.0
"""Virtual seconds after the last fault in which all that it has led to must be put right, while players go on."""


def settle(world: Simulation) -> None:
    """Let nothing go wrong any more, have all players leave, and wait until all is at rest.

    :raises gameproxy.simulation.world.SimulationFailed: it does not get there, or something is left.
    """
    world.write("settle")
    _end_faults(world)
    others_live = any(proxy.process.alive for proxy in world.proxies)
    if not (world.has_faults and others_live):
        _heal_proxies(world)
    world.allow(2 * (CALM_TIME + SETTLE_TIME + REST_TIME))
    if world.has_faults:
        world.run_for(CALM_TIME)
    wrong = world.ledger.wrongly_inside() or left_of_the_dead(world)
    if wrong is not None:
        raise world.failure(wrong)
    _heal_proxies(world)
    for client in world.all_clients:
        client.disconnect()
    world.run_until(lambda: _is_at_rest(world), SETTLE_TIME, "everything comes to rest")
    _check_rest(world)


def _end_faults(world: Simulation) -> None:
    world.kernel.network.mend_all()
    world.is_calm = True
    world.next_tempers.clear()
    world.ledger.clock_set()
    for machine in world.kernel.machines.values():
        machine.skew = 0
        for process in list(machine.processes.values()):
            process.thaw()
            process.descriptors_max = DESCRIPTORS_MAX
    for threads in world.database_threads():
        threads.calm()
    for server in world.remote_servers.values():
        server.heal()


def _heal_proxies(world: Simulation) -> None:
    for proxy in world.proxies:
        proxy.heal()


def _is_at_rest(world: Simulation) -> bool:
    return (
        world.ledger.taken == 0
        and all(len(proxy.service.sessions) == 0 for proxy in world.proxies)
        and all(client.state in ("idle", "ended") for client in world.all_clients)
    )


def _check_rest(world: Simulation) -> None:
    """Wait until nothing is left of the players, and look at what they saw."""
    deadline = world.now + REST_TIME
    soon = world.now + 5.0
    while (left := left_over(world)) is not None:
        if world.now > deadline:
            raise world.failure(f"at rest: {left}")
        world.run_for(0.5 if world.now < soon else 5.0)
    for client in world.all_clients:
        for fault in client.faults:
            world.violated(f"client {client.number} saw: {fault}")
    gc.collect()  # what failed unheard tells so now
    if world.violations:
        raise world.failure(world.violations[0])

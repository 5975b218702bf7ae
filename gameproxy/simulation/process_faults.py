"""What goes wrong with game servers and proxies, and with the clocks of their machines."""

from __future__ import annotations

import signal
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from gameproxy.farm.reaper import BEAT_INTERVAL
from gameproxy.farm.registry import PROXY_LIFE
from gameproxy.simulation.fault_timing import Act, later, long, short
from gameproxy.simulation.intruder import intrude
from gameproxy.simulation.kernel import MICROSECONDS
from gameproxy.simulation.processes import send_signal
from gameproxy.simulation.programs import Temper
from gameproxy.simulation.reactor import SimReactor

if TYPE_CHECKING:
    from gameproxy.simulation.world import SimProxy, Simulation

TAKEN_FOR_DEAD: Final = int((PROXY_LIFE - BEAT_INTERVAL - 1.0) * MICROSECONDS)
"""Microseconds after which others may take a proxy for dead that stands still."""


def _temper(temper: Temper) -> Act:
    def next_is(world: Simulation, chance: Random) -> bool:
        """The next game server that is started is so."""
        world.next_tempers.append(temper)
        return True

    return next_is


def _signal_server(number: int) -> Act:
    def act(world: Simulation, chance: Random) -> bool:
        servers = world.living_game_servers()
        if not servers:
            return False
        process = servers[chance.randrange(len(servers))].process
        send_signal(process.machine, process.pid, number)
        if number == signal.SIGSTOP:
            later(world, long(chance), process.thaw)
        return True

    return act


def _restart_server(world: Simulation, chance: Random) -> bool:
    """A game server elsewhere is ended and started again, at the same place."""
    servers = [server for server in world.remote_servers.values() if server.process.alive]
    if not servers:
        return False
    server = servers[chance.randrange(len(servers))]
    server.kill()
    later(world, short(chance), server.heal)
    return True


def _reuse_ports(world: Simulation, chance: Random) -> bool:
    """Ports that somebody had before are given out next: who still looks for him there finds another."""
    for machine in (world.farm_machine, world.clients_machine):
        machine.reuse_ports()
    return True


def _intruder(world: Simulation, chance: Random) -> bool:
    """Somebody connects to a game server who is no proxy of its farm."""
    servers = world.has_database and world.execute(
        "SELECT host, port, game FROM game_servers WHERE usable AND origin = 'started' ORDER BY id"
    )
    if not servers:
        return False
    host, port, game = servers[chance.randrange(len(servers))]
    process = world.farm_machine.start("intruder")
    intrude(SimReactor(process), host, port, game, f"{chance.getrandbits(128):032x}")
    return True


# Clocks, and proxies


def _clock_jumps(world: Simulation, chance: Random) -> bool:
    world.ledger.clock_set()
    world.farm_machine.skew += (chance.randrange(7200) - 3600) * MICROSECONDS
    return True


def _clients_clock_jumps(world: Simulation, chance: Random) -> bool:
    world.clients_machine.skew += (chance.randrange(7200) - 3600) * MICROSECONDS
    return True


def _kill_proxy(world: Simulation, chance: Random) -> bool:
    proxy = world.proxies[chance.randrange(len(world.proxies))]
    if not proxy.process.alive:
        return False
    proxy.kill()
    later(world, long(chance), proxy.heal)
    return True


def _freeze_proxy(world: Simulation, chance: Random) -> bool:
    proxy = world.proxies[chance.randrange(len(world.proxies))]
    process = proxy.process
    if not process.alive:
        return False
    process.freeze()
    later(world, long(chance), process.thaw)
    later(world, TAKEN_FOR_DEAD, partial(_taken_for_dead, world, proxy))
    return True


def _taken_for_dead(world: Simulation, proxy: SimProxy) -> None:
    if proxy.process.is_frozen and len(world.proxies) > 1:
        world.ledger.proxy_stands_still([session.id for session in proxy.service.sessions])


KINDS: Final[dict[str, Act]] = {
    "slow-start": _temper(Temper(start_delay=5.0)),
    "never-ready": _temper(Temper(start_delay=None)),
    "exit-before-ready": _temper(Temper(start_delay=1.0, exits=0.5)),
    "wrong-key": _temper(Temper(wrong_key=True)),
    "impostor": _temper(Temper(is_impostor=True)),
    "deaf-server": _temper(Temper(is_deaf=True)),
    "intruder": _intruder,
    "false-load": _temper(Temper(load=1.0)),
    "server-killed": _signal_server(signal.SIGKILL),
    "server-stopped": _signal_server(signal.SIGTERM),
    "server-restarted": _restart_server,
    "ports-reused": _reuse_ports,
    "server-hangs": _signal_server(signal.SIGSTOP),
    "clock-jumps": _clock_jumps,
    "clients-clock-jumps": _clients_clock_jumps,
    "proxy-killed": _kill_proxy,
    "proxy-hangs": _freeze_proxy,
}

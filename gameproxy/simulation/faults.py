"""What goes wrong in a simulated world, by name. Each fault has a stream of chance of its own."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from gameproxy.farm.reaper import BEAT_INTERVAL
from gameproxy.farm.registry import PROXY_LIFE
from gameproxy.simulation.chance import stream
from gameproxy.simulation.clients import Plan
from gameproxy.simulation.intruder import intrude
from gameproxy.simulation.kernel import MICROSECONDS
from gameproxy.simulation.machines import DESCRIPTORS_MAX
from gameproxy.simulation.network import Conditions
from gameproxy.simulation.processes import send_signal
from gameproxy.simulation.programs import Temper
from gameproxy.simulation.reactor import SimReactor

if TYPE_CHECKING:
    from gameproxy.simulation.sockets import SimSocket
    from gameproxy.simulation.world import SimProxy, Simulation

DRIPS: Final = 2000
"""Segments of a few bytes that a fault makes."""
TAKEN_FOR_DEAD: Final = int((PROXY_LIFE - BEAT_INTERVAL - 1.0) * MICROSECONDS)
"""Microseconds after which others may take a proxy for dead that stands still."""
Act = Callable[["Simulation", Random], bool]
"""Makes something go wrong now; tells whether there was anything to go wrong."""


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


# Links


def _clog(world: Simulation, chance: Random) -> bool:
    ways = _ways(world)
    source, target = ways[chance.randrange(len(ways))]
    network = world.kernel.network
    network.clog(source, target, 1000 + chance.randrange(500_000))
    _later(world, _short(chance), lambda: network.clog(source, target, 0))
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
    _later(world, _short(chance), lambda: setattr(conditions, "loss", 0))
    return True


def _drip(world: Simulation, chance: Random) -> bool:
    """Segments of a few bytes, and writes that take less than all."""
    conditions = world.kernel.network.conditions
    conditions.drips = DRIPS
    conditions.drip = 1 + chance.randrange(8)
    conditions.short_writes = 1000
    usual = Conditions().short_writes
    _later(world, _short(chance), lambda: setattr(conditions, "short_writes", usual))
    return True


# Connections


def _reset(world: Simulation, chance: Random) -> bool:
    sockets = _connections(world)
    if not sockets:
        return False
    sockets[chance.randrange(len(sockets))].break_connection()
    return True


def _stop_reading(world: Simulation, chance: Random) -> bool:
    """A player reads no more for a while, or for ever, while its game sends."""
    plan = Plan(frames=150, size=4000, gap=0.001, stays=True, reads=False, leaving=_leaving(chance))
    client = world.clients.make(1, plan)[0]
    client.connect()
    if chance.randrange(2):
        _later(world, 5 * MICROSECONDS + _short(chance), client.disconnect)
    return True


def _out_of_descriptors(world: Simulation, chance: Random) -> bool:
    process = world.proxies[chance.randrange(len(world.proxies))].process
    process.descriptors_max = len(process.sockets) + chance.randrange(3)
    _later(world, _short(chance), lambda: setattr(process, "descriptors_max", DESCRIPTORS_MAX))
    return True


# Players


def _player(plan: Plan) -> Act:
    def come(world: Simulation, chance: Random) -> bool:
        own = replace(plan, gap=(1 + chance.randrange(50_000)) / MICROSECONDS)
        world.clients.make(1 + chance.randrange(3), own).connect_all()
        return True

    return come


def _hang_up(world: Simulation, chance: Random) -> bool:
    """A player leaves in one of the phases."""
    phases = ("connecting", "authenticating", "waiting", "playing")
    plan = Plan(
        frames=20,
        hangs_up=phases[chance.randrange(len(phases))],
        gap=chance.randrange(30_000) / MICROSECONDS,
        leaving=_leaving(chance),
    )
    world.clients.make(1, plan).connect_all()
    return True


def _same_player_twice(world: Simulation, chance: Random) -> bool:
    """A player comes by ticket, and again while the first session goes on."""
    name = f"twin-{chance.getrandbits(32):08x}"
    plan = Plan(frames=3, gap=0.1, stays=True, leaving=_leaving(chance))
    first, second = world.clients.make(2, plan, player=name)
    first.connect()
    _later(world, chance.randrange(3 * MICROSECONDS), second.connect)
    return True


def _same_ticket_twice(world: Simulation, chance: Random) -> bool:
    """A player comes by ticket, and somebody who has seen the ticket comes by it too."""
    ticket = world.ticket(f"robbed-{chance.getrandbits(32):08x}")
    first, second = world.clients.make(2, Plan(frames=3, gap=0.1, leaving=_leaving(chance)))
    first.auth = second.auth = ticket
    first.connect()
    _later(world, chance.randrange(3 * MICROSECONDS), second.connect)
    return True


def _ban(world: Simulation, chance: Random) -> bool:
    """A player who plays is banned, and tries again."""
    playing = [client for client in world.all_clients if client.state == "playing"]
    if not playing:
        return False
    client = playing[chance.randrange(len(playing))]
    world.ban(f"guest:{client.name}")

    def again() -> None:
        if client.state == "ended":
            client.connect()

    _later(world, 3 * MICROSECONDS, again)
    return True


def _storm(world: Simulation, chance: Random) -> bool:
    """All who have gone come again at once."""
    gone = [
        client for client in world.all_clients if client.state == "ended" and client.connects < 4
    ]
    for client in gone:
        client.connect()
    return bool(gone)


# Game servers


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
            _later(world, _long(chance), process.thaw)
        return True

    return act


def _intruder(world: Simulation, chance: Random) -> bool:
    """Somebody connects to a game server who is no proxy of its farm."""
    servers = world.execute(
        "SELECT host, port, game FROM game_servers WHERE usable AND origin = 'started' ORDER BY id"
    )
    if not servers:
        return False
    host, port, game = servers[chance.randrange(len(servers))]
    process = world.farm_machine.start("intruder")
    intrude(SimReactor(process), host, port, game, f"{chance.getrandbits(128):032x}")
    return True


# The database


def _database_fails(code: int, words: str) -> Act:
    def act(world: Simulation, chance: Random) -> bool:
        def fail() -> int:
            raise _sqlite_error(code, words)

        for threads in world.database_threads():
            threads.fault = fail
            _later(world, _short(chance), threads.calm)
        return True

    return act


def _slow_database(world: Simulation, chance: Random) -> bool:
    delay = 1000 + chance.randrange(300_000)
    for threads in world.database_threads():
        threads.fault = lambda: delay
        _later(world, _short(chance), threads.calm)
    return True


def _answer_lost(world: Simulation, chance: Random) -> bool:
    """What was committed is told to have failed."""

    def fail(proxy: SimProxy) -> None:
        proxy.lose_database_connection()  # as when COMMIT raises it
        raise _sqlite_error(sqlite3.SQLITE_IOERR, "disk I/O error")

    for proxy in world.proxies:
        threads = proxy.database_threads
        threads.fault_after = partial(fail, proxy)
        _later(world, 1 + chance.randrange(20_000), threads.calm)
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
    _later(world, _long(chance), proxy.heal)
    return True


def _freeze_proxy(world: Simulation, chance: Random) -> bool:
    proxy = world.proxies[chance.randrange(len(world.proxies))]
    process = proxy.process
    if not process.alive:
        return False
    process.freeze()
    _later(world, _long(chance), process.thaw)
    _later(world, TAKEN_FOR_DEAD, partial(_taken_for_dead, world, proxy))
    return True


def _taken_for_dead(world: Simulation, proxy: SimProxy) -> None:
    if proxy.process.is_frozen and len(world.proxies) > 1:
        world.ledger.proxy_stands_still([session.id for session in proxy.service.sessions])


KINDS: Final[dict[str, Act]] = {
    "clog": _clog,
    "cut-one-way": _cut_one_way,
    "cut-both-ways": _cut_both_ways,
    "loss": _lossy,
    "drip": _drip,
    "reset": _reset,
    "stopped-reader": _stop_reading,
    "out-of-descriptors": _out_of_descriptors,
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
    "server-hangs": _signal_server(signal.SIGSTOP),
    "database-locked": _database_fails(sqlite3.SQLITE_BUSY, "database is locked"),
    "database-full": _database_fails(sqlite3.SQLITE_FULL, "database or disk is full"),
    "database-slow": _slow_database,
    "answer-lost": _answer_lost,
    "clock-jumps": _clock_jumps,
    "clients-clock-jumps": _clients_clock_jumps,
    "proxy-killed": _kill_proxy,
    "proxy-hangs": _freeze_proxy,
}
"""All that can go wrong."""


def _links(world: Simulation) -> list[tuple[str, str]]:
    """The machines that have anything to do with each other, by their addresses."""
    farm = world.farm_machine.address
    servers = [(farm, server.machine.address) for server in world.remote_servers.values()]
    return [(farm, world.clients_machine.address), *servers]


def _ways(world: Simulation) -> list[tuple[str, str]]:
    return [way for one, other in _links(world) for way in ((one, other), (other, one))]


def _cut(world: Simulation, chance: Random, ways: list[tuple[str, str]]) -> None:
    network = world.kernel.network
    delay = _short(chance) if chance.randrange(4) else 20 * MICROSECONDS
    for source, target in ways:
        network.cut(source, target)
        _later(world, delay, partial(network.mend, source, target))


def _connections(world: Simulation) -> list[SimSocket]:
    return [
        socket
        for machine in world.kernel.machines.values()
        for process in machine.processes.values()
        for socket in process.sockets.values()
        if socket.state in ("connected", "connecting")
    ]


def _leaving(chance: Random) -> str:
    return ("close", "end", "reset")[chance.randrange(3)]


def _short(chance: Random) -> int:
    """Up to two seconds, in microseconds."""
    return 10_000 + chance.randrange(2 * MICROSECONDS)


def _long(chance: Random) -> int:
    """Up to twenty-five seconds, in microseconds."""
    return 10_000 + chance.randrange(25 * MICROSECONDS)


def _later(world: Simulation, delay: int, call: Callable[[], object]) -> None:
    """Something that a fault has changed is to be as before, in ``delay`` microseconds."""

    def unless_calm() -> None:
        if not world.is_calm:
            call()

    world.kernel.after(delay, unless_calm)


def _sqlite_error(code: int, words: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(words)
    error.sqlite_errorcode = code
    return error

"""A simulated world: proxies, the game servers that they start, clients, and what must hold among them."""

from __future__ import annotations

import gc
import itertools
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Final

from twisted.logger import globalLogPublisher

from gameproxy.config import Config, ServerConfig
from gameproxy.gameserver import Game, Place
from gameproxy.keys import read_secret
from gameproxy.simulation.chance import entropy, stream
from gameproxy.simulation.handles import ServerHandle
from gameproxy.simulation.invariants import LogEar, Watch, connections_to
from gameproxy.simulation.kernel import EPOCH, MICROSECONDS, Kernel, Livelock
from gameproxy.simulation.ledger import Ledger
from gameproxy.simulation.processes import Programs, send_signal
from gameproxy.simulation.programs import Temper, run_echo, serve_game
from gameproxy.simulation.proxies import FARM_ADDRESS
from gameproxy.simulation.proxies import SimProxy as SimProxy
from gameproxy.simulation.reactor import SimReactor
from gameproxy.simulation.remote import SERVERS_NETWORK, SimServer
from gameproxy.simulation.replacement import Replacement
from gameproxy.simulation.settling import settle
from gameproxy.simulation.stage import Stage, WorldFailed, with_tickets
from gameproxy.simulation.stage import default_config as default_config
from gameproxy.simulation.states import State
from gameproxy.simulation.threads import SimThreadPool
from gameproxy.simulation.trace import Trace

CLIENTS_ADDRESS: Final = "10.0.1.1"
HYDRATING_TIME: Final = 600.0
"""Virtual seconds that it may take until a world is in the state in which it is to begin."""
DISTURBED: Final = 25
"""Of 100 times that a site is come by which is to be disturbed, how often it is."""
_LOOKS_AT_WALL: Final = 256
"""Events between two looks at the wall clock."""
_COLLECTED_TOGETHER: Final = 16
"""Worlds whose garbage is looked for at once: a new one freezes what is left of those before it."""
_closed: Final = itertools.count(1)


class SimulationFailed(WorldFailed):
    """Something does not hold in a simulated world; the text says what, when, and how to have it again."""


class Simulation(Stage):
    """A world driven by one seed.

    :param seed: of all chance.
    :param virtual_budget: seconds of virtual time that the run may take.
    :param wall_budget: seconds of real time that it may take.
    :param keep_trace: whether the trace's lines are kept, beside their hash.
    :param config: of the proxies; ``None``: guests, and the game ``echo`` with servers of 16.
    :param proxies: how many there are on the one database.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        virtual_budget: float = 60.0,
        wall_budget: float = 5.0,
        keep_trace: bool = False,
        config: Config | None = None,
        proxies: int = 1,
    ) -> None:
        gc.freeze()  # what was there before is not looked through for each world's garbage
        super().__init__(seed)
        self.kernel = Kernel(seed, Trace(keep_trace))
        self.violations: list[str] = []
        self.replay_command = f"gameproxy sim run --seed {seed}"
        self._virtual_budget = int(virtual_budget * MICROSECONDS)
        self._virtual_end = EPOCH + self._virtual_budget
        self.begun = EPOCH
        """When the state was there in which the world begins, in microseconds since 1970."""
        self._wall_budget = wall_budget
        self._wall_used = 0.0
        self._folder = tempfile.TemporaryDirectory(prefix="gameproxy-sim-", dir=_memory_folder())
        self.ledger = Ledger(
            self.violated, self._capacity_of, partial(connections_to, self), self.write
        )
        self.replacement = Replacement(self)
        self.programs = Programs(seed)
        self.programs.programs["echo"] = self._run_echo
        self.temper_of: Callable[[int], Temper] = lambda number: Temper()
        """Gives the temper of each game server that is started, by its number."""
        self.next_tempers: list[Temper] = []
        """What the next game servers that are started are like, before :attr:`temper_of` is asked."""
        self.game_servers: dict[int, SimReactor] = {}
        """The reactors of the started game servers, by pid."""
        self.remote_servers: dict[str, SimServer] = {}
        """The game servers that run on machines of their own, by id."""
        self.has_faults = False
        """Whether anything is to go wrong: then players may be sent away."""
        self.is_calm = False
        """Whether no fault is to happen any more."""
        self.reached = self.kernel.reached
        """How often each fault did something, and each named place was come by."""
        self._site_chances: dict[str, Random] = {}
        self._started = 0
        self.farm_machine = self.kernel.add_machine("farm", FARM_ADDRESS)
        self.clients_machine = self.kernel.add_machine("clients", CLIENTS_ADDRESS)
        self._clients_reactor = SimReactor(self.clients_machine.start("clients"))
        self._configure(config or default_config(), proxies)
        ear = LogEar(weakref.WeakMethod(self.violated))
        globalLogPublisher.addObserver(ear)
        self._let_go = weakref.finalize(self, _let_go, ear, self._folder)

    def _configure(self, config: Config, proxies: int) -> None:
        self.config = with_tickets(config, Path(self._folder.name))
        self._capacities = {game.name: game.capacity for game in config.games}
        self._listed_capacities = {server.id: server.capacity for server in config.servers}
        self._proxies = [SimProxy(self, number) for number in range(proxies)]
        self._watch = Watch(self)

    def _capacity_of(self, server: str, game: str) -> int:
        """Of a game server that is listed by its id, or that is started for a game."""
        capacity = self._listed_capacities.get(server)
        return self._capacities[game] if capacity is None else capacity

    # Its life

    def _begin(self) -> None:
        if self.remote_servers:
            secret = read_secret(self.config.secret_path, entropy(self.seed, "secret"))
            for server in self.remote_servers.values():
                server.secret = secret
                server.start()
        for proxy in self.proxies:
            proxy.start()
        self.run_until(lambda: all(proxy.serves for proxy in self.proxies), 10, "proxies serve")

    def close(self) -> None:
        if self._let_go.alive:
            if self._is_started:
                for proxy in self._proxies:
                    proxy.kill()
            self._let_go()

    @property
    def proxies(self) -> list[SimProxy]:
        self.start()
        return self._proxies

    @property
    def clients_reactor(self) -> SimReactor:
        return self._clients_reactor

    def server(self, id: str) -> ServerHandle:
        if id in self.remote_servers:
            return self.remote_servers[id]
        found = self.execute(
            "SELECT pid FROM game_servers WHERE id = :id AND origin = 'started'", id=id
        )
        if not found:
            raise KeyError(id)
        ((pid,),) = found

        def signal_it(number: int) -> None:
            if pid in self.farm_machine.processes:
                send_signal(self.farm_machine, pid, number)

        return ServerHandle(signal_it)

    # Its state at the beginning

    def configure(self, state: State) -> None:
        listed = []
        for number, server in enumerate(state.servers):
            address = str(SERVERS_NETWORK[number + 1])
            machine = self.kernel.add_machine(f"machine of {server.id}", address)
            remote = SimServer(machine, server, self.ledger)
            self.remote_servers[server.id] = remote
            listed.append(
                ServerConfig(
                    id=server.id,
                    game=server.game,
                    host=address,
                    port=remote.port,
                    capacity=server.capacity,
                )
            )
        config = state.config.model_copy(update={"servers": tuple(listed)})
        self._configure(config, state.proxies)
        self._virtual_end = EPOCH + int(HYDRATING_TIME * MICROSECONDS)

    def start_server(self, game: str, temper: Temper) -> str:
        self.next_tempers.append(temper)
        ids: list[str] = []
        self.proxies[0].service.farm.start_server(game).addCallback(ids.append)
        self.run_until(lambda: bool(ids), 10, f"a proxy starts a game server of {game}")
        return ids[0]

    def hydrated(self) -> None:
        self.begun = self.kernel.now
        self._virtual_end = self.begun + self._virtual_budget
        self._wall_used = 0.0

    @property
    def now(self) -> float:
        """Virtual seconds since the beginning."""
        return (self.kernel.now - self.begun) / MICROSECONDS

    def write(self, *words: object) -> None:
        """Add a line to the trace."""
        self.kernel.write(*words)

    def reach(self, name: str) -> None:
        """Count that something was done, or come by."""
        self.kernel.reach(name)

    def disturbs(self, site: str) -> bool:
        """Whether a site of production code that is come by is to be disturbed."""
        self.reach(site)
        chance = self._site_chances.get(site)
        if chance is None or self.is_calm or chance.randrange(100) >= DISTURBED:
            return False
        self.reach(f"{site}, disturbed")
        return True

    def disturb(self, sites: Iterable[str]) -> None:
        """Have some sites of production code disturbed from now on, now and then."""
        self._site_chances = {site: stream(self.seed, "site", site) for site in sites}

    def address_of(self, client: int) -> str:
        address = f"10.{64 + client // 62_500}.{client // 250 % 250}.{client % 250 + 1}"
        self.kernel.routes[address] = self.clients_machine
        return address

    def ban(self, player: str) -> None:
        super().ban(player)
        self.write("ban", player)
        self.ledger.banned[player] = None

    @property
    def has_database(self) -> bool:
        """Whether the farm's database is there: when it was deleted, proxies make another soon."""
        return self.config.database_path.exists()

    def living_game_servers(self) -> list[SimReactor]:
        """The reactors of the game servers that run."""
        remote = [server.reactor for server in self.remote_servers.values()]
        everywhere = [*self.game_servers.values(), *remote]
        return [reactor for reactor in everywhere if reactor.process.alive]

    def database_threads(self) -> list[SimThreadPool]:
        """The threads in which the farm's database is used."""
        proxies = [proxy.database_threads for proxy in self.proxies if proxy.process.alive]
        started = [reactor for reactor in self.game_servers.values() if reactor.process.alive]
        return proxies + [reactor.thread_pool for reactor in started]

    # Time

    def at(self, seconds: float, call: Callable[[], object]) -> None:
        """Have something happen so many virtual seconds after the beginning, or now if that is past."""
        self.start()
        when = self.begun + int(seconds * MICROSECONDS)
        self.kernel.at(max(when, self.kernel.now), call)

    def allow(self, seconds: float) -> None:
        """Let the run take so much more virtual time at least, whatever its budget."""
        self._virtual_end = max(self._virtual_end, self.kernel.now + int(seconds * MICROSECONDS))

    def run_for(self, seconds: float) -> None:
        """Let so much virtual time go by."""
        self.start()
        self._run(self.kernel.now + int(seconds * MICROSECONDS), lambda: False)

    def run_until(
        self, condition: Callable[[], bool], within: float, what: str = "the condition"
    ) -> None:
        """Let time go by until something holds.

        :param condition: looked at after each event.
        :param within: virtual seconds that it may take.
        :raises SimulationFailed: it does not hold by then.
        """
        self.start()
        if not self._run(self.kernel.now + int(within * MICROSECONDS), condition):
            raise self.failure(f"not within {within:g} s: {what}")

    def _run(self, until: int, condition: Callable[[], bool]) -> bool:
        """Whether the condition held before that moment."""
        kernel = self.kernel
        held = condition()
        looks = _LOOKS_AT_WALL
        begin = time.perf_counter()
        look = self._watch.look

        def after_event() -> None:
            nonlocal held, looks
            look()
            held = condition()
            if held or self.violations:
                kernel.stop()
            looks -= 1
            if looks == 0:
                looks = _LOOKS_AT_WALL
                if self._wall_used + time.perf_counter() - begin > self._wall_budget:
                    kernel.stop()

        kernel.on_event = after_event
        collects = gc.isenabled()
        gc.disable()
        try:
            if not held:
                kernel.run(min(until, self._virtual_end))
        except Livelock as error:
            raise self.failure(f"time stands still: {error}") from error
        finally:
            if collects:
                gc.enable()
            self._wall_used += time.perf_counter() - begin
        if self.violations:
            raise self.failure(self.violations[0])
        if self._wall_used > self._wall_budget:
            raise self.failure(f"past its {self._wall_budget:g} s of real time")
        if not held and until > self._virtual_end and kernel.now >= self._virtual_end:
            raise self.failure("past its virtual time")
        return held

    # What holds

    def failure(self, what: str) -> SimulationFailed:
        """An error that says what, where the world was, and how to have it again."""
        self.write("failure", *what.split())
        states: dict[str, int] = {}
        for client in self.all_clients:
            states[client.state] = states.get(client.state, 0) + 1
        where = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
        at = (self.kernel.now - EPOCH) / MICROSECONDS  # as the trace has it
        return SimulationFailed(
            f"{what}\n  at {at:.6f} s, after {self.kernel.events} events; clients: {where};"
            f" slots taken: {self.ledger.taken}\n  again: {self.replay_command}"
        )

    def _settle(self) -> None:
        settle(self)

    def violated(self, what: str) -> None:
        """Something does not hold: the run ends."""
        self.write("violation", *what.split())  # a line is a line
        self.violations.append(what)
        self.kernel.stop()

    # Game servers

    def add_game(self, name: str, make: Callable[[], Game], command: Sequence[str] = ()) -> None:
        def run(
            reactor: SimReactor, arguments: Sequence[str], environment: Mapping[str, str]
        ) -> None:
            self.game_servers[reactor.process.pid] = reactor
            serve_game(reactor, Place.from_environment(environment), make())

        self.programs.programs[name] = run

    def _run_echo(
        self, reactor: SimReactor, arguments: Sequence[str], environment: Mapping[str, str]
    ) -> None:
        temper = self.next_tempers.pop(0) if self.next_tempers else self.temper_of(self._started)
        self._started += 1
        process = reactor.process
        self.game_servers[process.pid] = reactor
        server = environment["GAMEPROXY_SERVER_ID"]
        process.on_exit.append(lambda status, by_signal: self.ledger.server_ended(server))
        run_echo(reactor, arguments, environment, self.ledger, temper)


def _let_go(ear: LogEar, folder: tempfile.TemporaryDirectory[str]) -> None:
    globalLogPublisher.removeObserver(ear)
    folder.cleanup()
    gc.unfreeze()
    if next(_closed) % _COLLECTED_TOGETHER == 0:
        gc.collect()


def _memory_folder() -> str | None:
    """Where files are in memory, if there is such a place."""
    shm = Path("/dev/shm")  # noqa: S108 - a folder of one's own is made in it
    return str(shm) if shm.is_dir() else None

"""The real thing, on loopback, with what tests have of a simulated world: so that one test may run in both."""

from __future__ import annotations

import json
import math
import socket
import sys
import time
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

from twisted.internet.epollreactor import EPollReactor

from gameproxy.config import Config, ServerConfig
from gameproxy.control import control_folder
from gameproxy.farm import LinuxProcesses
from gameproxy.gameserver import Game
from gameproxy.handshake import derive_server_key
from gameproxy.keys import read_secret
from gameproxy.simulation.chance import entropy
from gameproxy.simulation.handles import ServerHandle
from gameproxy.simulation.live_processes import LOOPBACK, TAIL, LiveProxy, LiveServer, Premises
from gameproxy.simulation.programs import Temper
from gameproxy.simulation.stage import (
    Stage,
    WorldFailed,
    default_config,
    with_tickets,
)
from gameproxy.simulation.states import State

COMMANDS: Final = {"echo": (sys.executable, "-m", "gameproxy.arena.echo")}
"""What the programs of a simulated world are in a real one."""
START_TIME: Final = 10.0
"""Seconds in which proxies and game servers must have started."""
SETTLE_TIME: Final = 20.0
"""Seconds in which all must come to rest."""
STEP: Final = 0.01
"""Seconds between two looks at what is waited for, at most."""


class Live(Stage):
    """Real proxies and game servers, in processes of their own, with the clients in this one.

    Time goes by while something is waited for: then the clients live too. Started game servers and ``[[servers]]`` send
    each frame back. All processes end with the world, and their folder is removed.

    :param seed: of what clients draw. It does not make the world the same again.
    :param wall_budget: seconds that it may take, from when the state is there in which it begins to ``settle``.
    :param patience: by how much all bounds of time are longer than a test says: real machines are busy at times.
    :param config: of the proxies; ``None``: guests, and the game ``echo`` with servers of 16.
    :param proxies: how many there are on the one database.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        wall_budget: float = 60.0,
        patience: float = 4.0,
        config: Config | None = None,
        proxies: int = 1,
    ) -> None:
        super().__init__(seed)
        self.patience = patience
        self._wall_budget = wall_budget
        self._premises = Premises()
        self._clear = weakref.finalize(self, self._premises.clear)
        self._servers: dict[str, LiveServer] = {}
        self._state: State | None = None
        self._begun = time.monotonic()
        self._end = math.inf
        self._reactor = _reactor()
        self._commands: dict[str, tuple[str, ...]] = dict(COMMANDS)
        self._configure(config or default_config(), proxies)

    # Its life

    def _configure(self, config: Config, proxies: int) -> None:
        proxy = config.proxy.model_copy(update={"database": "sqlite:///farm.db"})
        config = config.model_copy(update={"proxy": proxy})
        self.config = with_tickets(config, self._premises.folder)
        self._proxies = [
            LiveProxy(number, self._premises, lambda: self.config) for number in range(proxies)
        ]

    def _begin(self) -> None:
        for server in self._servers.values():
            server.start()
        if self._servers:
            self.run_until(
                lambda: all(server.port for server in self._servers.values()),
                START_TIME,
                "game servers listen",
            )
            self._list_servers()
        games = tuple(
            game.model_copy(update={"command": self._commands.get(game.command[0], game.command)})
            for game in self.config.games
        )
        self.config = self.config.model_copy(update={"games": games})
        for proxy in self._proxies:
            proxy.start()
        self.run_until(
            lambda: all(proxy.serves for proxy in self._proxies), START_TIME, "proxies serve"
        )
        if self._state is None:
            self.hydrated()

    def close(self) -> None:
        if self._clear.alive:
            for client in self.all_clients:
                client.disconnect("reset")
            self._turn(
                time.monotonic() + 1.0,
                lambda: all(client.state in ("idle", "ended") for client in self.all_clients),
            )
            self._clear()

    def add_game(self, name: str, make: Callable[[], Game], command: Sequence[str] = ()) -> None:
        if not command:
            raise ValueError(f"a real world needs a command that runs {name}")
        self._commands[name] = tuple(command)

    @property
    def proxies(self) -> list[LiveProxy]:
        self.start()
        return self._proxies

    @property
    def clients_reactor(self) -> Any:
        return self._reactor

    def server(self, id: str) -> ServerHandle:
        if id in self._servers:
            return self._servers[id]
        name = self._premises.started()[id]
        return ServerHandle(lambda number: LinuxProcesses().signal(name, number))

    # Its state at the beginning

    def configure(self, state: State) -> None:
        self._configure(state.config, state.proxies)
        self._state = state
        secret = read_secret(self.config.secret_path, entropy(self.seed, "secret"))
        for number, listed in enumerate(state.servers):
            temper = listed.temper.as_temper
            if temper not in (Temper(), Temper(wrong_key=True)):
                raise ValueError(f"servers[{number}].temper cannot be had in the real world")
            key = derive_server_key(secret, listed.id)
            if temper.wrong_key:
                key = bytes(len(key))
            self._servers[listed.id] = LiveServer(self._premises, listed, key)

    def _list_servers(self) -> None:
        assert self._state is not None
        listed = tuple(
            ServerConfig(
                id=server.id,
                game=server.game,
                host=LOOPBACK,
                port=self._servers[server.id].port,
                capacity=server.capacity,
            )
            for server in self._state.servers
        )
        self.config = self.config.model_copy(update={"servers": listed})

    def start_server(self, game: str, temper: Temper) -> str:
        if temper != Temper():
            raise ValueError(
                f"a game server of {game} with a temper cannot be had in the real world"
            )
        path = next(control_folder(self.config.database_path).glob("*.sock"))
        with socket.socket(socket.AF_UNIX) as proxy:
            proxy.settimeout(START_TIME)
            proxy.connect(str(path))
            proxy.sendall(json.dumps({"ask": "start", "game": game}).encode() + b"\n")
            with proxy.makefile("rb") as lines:
                answer = json.loads(lines.readline())
        if "answer" not in answer:
            raise self.failure(f"a proxy starts no game server of {game}: {answer}")
        return str(answer["answer"]["server"])

    def hydrated(self) -> None:
        self._begun = time.monotonic()
        self._end = self._begun + self._wall_budget

    # Time

    @property
    def now(self) -> float:
        return time.monotonic() - self._begun

    def run_for(self, seconds: float) -> None:
        self.start()
        self._run(time.monotonic() + seconds, lambda: False)

    def run_until(
        self, condition: Callable[[], bool], within: float, what: str = "the condition"
    ) -> None:
        self.start()
        if not self._run(time.monotonic() + within * self.patience, condition):
            raise self.failure(f"not within {within * self.patience:g} s: {what}")

    def _run(self, until: float, condition: Callable[[], bool]) -> bool:
        """Whether the condition held before that moment."""
        if self._turn(min(until, self._end), lambda: condition() or self._has_lost_a_proxy()):
            if self._has_lost_a_proxy():
                raise self.failure("a proxy has ended that was not to end")
            return True
        if time.monotonic() >= self._end:
            raise self.failure(f"past its {self._wall_budget:g} s")
        return False

    def _turn(self, until: float, condition: Callable[[], bool]) -> bool:
        while not condition():
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._reactor.iterate(min(left, STEP))
        return True

    def _has_lost_a_proxy(self) -> bool:
        return any(proxy.is_wanted and not proxy.is_alive for proxy in self._proxies)

    # What holds

    def failure(self, what: str) -> WorldFailed:
        states: dict[str, int] = {}
        for client in self.all_clients:
            states[client.state] = states.get(client.state, 0) + 1
        where = ", ".join(f"{count} {state}" for state, count in states.items()) or "none"
        logs = "".join(
            f"\n  proxy{proxy.number}: {line}"
            for proxy in self._proxies
            for line in proxy.output.splitlines()[-TAIL:]
        )
        return WorldFailed(f"{what}\n  after {self.now:.1f} s; clients: {where}{logs}")

    def _settle(self) -> None:
        for server in self._servers.values():
            server.heal()
        for id in self._premises.started():
            self.server(id).go_on()
        for proxy in self._proxies:
            proxy.heal()
        for client in self.all_clients:
            client.disconnect()
        self._end = max(self._end, time.monotonic() + 2 * SETTLE_TIME * self.patience)
        self.run_until(
            lambda: all(client.state in ("idle", "ended") for client in self.all_clients),
            SETTLE_TIME,
            "all clients have left",
        )
        latest = time.monotonic() + SETTLE_TIME * self.patience
        if not self._run(latest, lambda: self._left_over() is None):
            raise self.failure(f"at rest: {self._left_over()}")
        for client in self.all_clients:
            for fault in client.faults:
                raise self.failure(f"client {client.number} saw: {fault}")
        for proxy in self._proxies:
            if "Traceback" in proxy.output:
                raise self.failure(f"proxy{proxy.number} has failed: {proxy.output}")

    def _left_over(self) -> str | None:
        ((slots, proxies, wrong),) = self.execute(
            "SELECT (SELECT count(*) FROM slots), (SELECT count(*) FROM proxies),"
            " (SELECT count(*) FROM game_servers WHERE reserved <> 0 OR connections <> 0"
            " OR connections_added <> connections_removed)"
        )
        if slots:
            return f"{slots} slots"
        if proxies != len(self._proxies):
            return f"{proxies} proxies in the table"
        return f"{wrong} game servers with counts" if wrong else None

    def write(self, *words: object) -> None:
        """What clients tell is not kept: a real world has no trace."""


@cache
def _reactor() -> Any:
    """The reactor of the clients of all real worlds of this process: never the program's, and turned by hand."""
    reactor = EPollReactor()
    reactor.startRunning(installSignalHandlers=False)
    return reactor

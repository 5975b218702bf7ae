"""A farm on a database of its own, under a clock: what the farm's unit tests share."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

from gameproxy.config import Config, GameConfig
from gameproxy.farm import FarmStore, GameFarm, ProcessName, Selector, StoreError
from gameproxy.farm.starter import Launch
from gameproxy.interfaces import Identity, Peer, Slot, SlotRequest, UsedTicket, Waiting
from gameproxy.reasons import Refusal
from tests.inline_threads import InlineReactor, Node


def counting_entropy() -> Callable[[int], bytes]:
    """Bytes that look different at each call and are the same in each run."""
    count = 0

    def entropy(size: int) -> bytes:
        nonlocal count
        count += 1
        return count.to_bytes(size, "big")

    return entropy


class FakeProcesses:
    """A process table that a test writes.

    :ivar running: pid to start time.
    :ivar orphans: pids of ended processes whose groups have members.
    :ivar signals: what was sent to groups: pid, signal.
    """

    def __init__(self) -> None:
        self.running: dict[int, str] = {}
        self.orphans: set[int] = set()
        self.signals: list[tuple[int, int]] = []
        self.current = 1

    def seen_by(self, pid: int) -> FakeProcesses:
        """The same table as the process with that pid sees it."""
        self.running[pid] = f"start of {pid}"
        view = copy(self)
        view.current = pid
        return view

    def me(self) -> ProcessName:
        return self.name(self.current)

    def name(self, pid: int) -> ProcessName:
        return ProcessName(pid, self.running.get(pid), "here")

    def is_gone(self, process: ProcessName) -> bool:
        return process.place == "here" and self.running.get(process.pid) != process.started

    def signal(self, process: ProcessName, number: int) -> bool:
        if self.is_gone(process) and process.pid not in self.orphans:
            return False
        if number:
            self.signals.append((process.pid, number))
        return True


class FakeStarter:
    """Starts game servers that are nothing but an entry in the process table.

    :ivar started: ids, in order.
    :ivar answers: by id, whether its process may become the game server.
    :ivar broken: when set, what starting raises.
    :ivar unclean: when set, what cleaning up raises.
    """

    def __init__(self, processes: FakeProcesses) -> None:
        self._processes = processes
        self._exits: dict[str, Callable[[], None]] = {}
        self.pids: dict[str, int] = {}
        self.started: list[str] = []
        self.answers: dict[str, bool] = {}
        self.broken: Exception | None = None
        self.unclean: OSError | None = None
        self.cleaned: list[str] = []

    def start(self, server: str, game: GameConfig, on_exit: Callable[[], None]) -> Launch:
        self.started.append(server)
        if self.broken is not None:
            raise self.broken
        pid = 100 + len(self.started)
        self.pids[server] = pid
        self._processes.running[pid] = f"start of {server}"
        self._exits[server] = on_exit
        return Launch(self._processes.name(pid), partial(self._answered, server))

    def _answered(self, server: str, may_run: bool) -> None:
        assert server not in self.answers, "answered twice"
        self.answers[server] = may_run

    def clean_up(self, server: str) -> None:
        self.cleaned.append(server)
        if self.unclean is not None:
            raise self.unclean

    def end(self, server: str) -> None:
        """The process of that server ends."""
        self._processes.running.pop(self.pids[server], None)
        self._exits[server]()


class Client:
    """A session at the farm: what it asked for and what it got."""

    def __init__(self, farm: GameFarm, session: str, game: str, **identity: Any) -> None:
        self.farm = farm
        self.session = session
        self.told: list[tuple[str, int]] = []
        self.requests = 0
        self.slots: list[Slot] = []
        self.refusals: list[Refusal] = []
        address = identity.pop("address", "192.0.2.1")
        ticket = identity.pop("ticket", None)
        player = identity.pop("player", session)
        mechanism = identity.pop("mechanism", "ticket")
        self.request = SlotRequest(
            session,
            Identity(player, mechanism, ticket=ticket and UsedTicket(ticket, 2e9)),
            game,
            Peer(address, 4000, False),
        )
        self.expect(farm.acquire(self.request, self.waiting))

    def expect(self, result: Any) -> None:
        self.result = result
        self.requests += 1
        result.addCallbacks(self.slots.append, lambda failure: self.refusals.append(failure.value))

    def has_slot(self) -> bool:
        """Whether its latest request has been answered with a slot."""
        return bool(self.slots) and self.requests == len(self.slots) and not self.refusals

    def waiting(self, waiting: Waiting) -> None:
        self.told.append((waiting.state, waiting.position))

    @property
    def server(self) -> str | None:
        return self.slots[-1].server if self.slots else None

    @property
    def reason(self) -> str | None:
        return str(self.refusals[-1].reason) if self.refusals else None


class World:
    """One database, one clock and any number of proxies.

    :param path: the database.
    :param sections: those of the configuration.
    :ivar broken_key: when set, what is raised in place of a game server's key.
    """

    def __init__(self, path: Path, **sections: Any) -> None:
        self.path = path
        self.reactor = InlineReactor()
        self.processes = FakeProcesses()
        self.entropy = counting_entropy()
        self.sections = sections
        self.evicted: list[tuple[str, str]] = []
        self.doubted: list[str] = []
        self.starter = FakeStarter(self.processes)
        self.count = 0
        self.selector: Selector | None = None
        self.broken_key: Exception | None = None
        self.started: list[GameFarm] = []
        self.nodes: dict[str, tuple[Node, int]] = {}

    def proxy(self, **sections: Any) -> GameFarm:
        """Another proxy of this farm, started."""
        node = Node(self.reactor)
        pid = len(self.nodes) + 1
        farm = GameFarm(
            Config.model_validate({**self.sections, **sections}),
            FarmStore(str(self.path), node, self.reactor.threads),  # type: ignore[arg-type]
            self.starter,
            self.processes.seen_by(pid),
            node,
            self.entropy,
            self._key_for,
            lambda session, refusal: self.evicted.append((session, str(refusal.reason))),
            self.doubted.append,
            self.selector,
        )
        self.nodes[farm.proxy] = (node, pid)
        started = farm.start()
        self.reactor.settle()
        started.addCallbacks(
            lambda _: self.started.append(farm), lambda f: f.trap(StoreError) and None
        )
        assert farm in self.started
        return farm

    def _key_for(self, server: str) -> bytes:
        if self.broken_key is not None:
            raise self.broken_key
        return server.encode().ljust(32, b"\0")[:32]

    def kill(self, farm: GameFarm) -> None:
        """Its process is killed: nothing of it happens any more."""
        node, pid = self.nodes[farm.proxy]
        node.alive = False
        del self.processes.running[pid]

    def node(self, farm: GameFarm) -> Node:
        """The process of a proxy."""
        return self.nodes[farm.proxy][0]

    def client(self, farm: GameFarm, game: str = "chess", **identity: Any) -> Client:
        """A new session that asks for a slot; what can happen at once has happened."""
        self.count += 1
        client = Client(farm, f"s{self.count}", game, **identity)
        self.reactor.settle()
        return client

    def result(self, deferred: Any) -> Any:
        """What a request comes to at once; of a refusal, the reason."""
        results: list[Any] = []
        deferred.addCallbacks(
            results.append, lambda failure: results.append(str(failure.value.reason))
        )
        self.reactor.settle()
        (result,) = results
        return result

    def sql(self, statement: str, *arguments: Any) -> list[Any]:
        """As another process would write or read."""
        connection = sqlite3.connect(self.path, isolation_level=None)
        try:
            return connection.execute(statement, arguments).fetchall()
        finally:
            connection.close()

    def ready(self, server: str, port: int = 5000) -> None:
        """A game server says that it listens, as the protocol has it."""
        self.sql(
            "UPDATE game_servers SET state = 'ready', host = '127.0.0.1', port = ?, "
            "heartbeat_at = ? WHERE id = ? AND state = 'starting'",
            port,
            self.reactor.seconds(),
            server,
        )

    def counts(self, server: str) -> tuple[int, int, int, int]:
        """reserved, connections, connections_added, connections_removed."""
        row = self.sql(
            "SELECT reserved, connections, connections_added, connections_removed "
            "FROM game_servers WHERE id = ?",
            server,
        )[0]
        return tuple(row)  # type: ignore[return-value]


def listed(server: str, capacity: int = 2, game: str = "chess") -> dict[str, Any]:
    """One of ``[[servers]]``."""
    return {"id": server, "game": game, "host": "127.0.0.1", "port": 4001, "capacity": capacity}

"""What a test holds of a world: its proxies, its game servers, what makes its clients, and its farm's tables."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from gameproxy.messages import Auth
from gameproxy.simulation.clients import Client, Clients, Plan

if TYPE_CHECKING:
    from gameproxy.simulation.stage import Stage

_DEFAULT_PLAN: Final = Plan()
_STAYS: Final = Plan(stays=True)


class ProxyHandle(Protocol):
    """A proxy of a world."""

    number: int

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect."""
        ...

    def start(self) -> None:
        """Start it again."""
        ...

    def kill(self) -> None:
        """End it as SIGKILL does."""
        ...


class ServerHandle:
    """A game server of a world.

    :param signal: sends its process a signal, if it runs.
    :param start: starts it again; ``None``: that is the farm's to do.
    """

    def __init__(
        self, signal: Callable[[int], object], start: Callable[[], object] | None = None
    ) -> None:
        self._signal = signal
        self._start = start

    def kill(self) -> None:
        """End it as SIGKILL does."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, as SIGTERM does: it takes no more players, and ends when all have left."""
        self._signal(signal.SIGTERM)

    def hang(self) -> None:
        """Let it stand still."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on after :meth:`hang`."""
        self._signal(signal.SIGCONT)

    def start(self) -> None:
        """Start it again after its end.

        :raises ValueError: it runs; or a proxy has started it, and only a proxy can start another.
        """
        if self._start is None:
            raise ValueError("game servers that proxies start are theirs to start")
        self._start()


class ClientFactory:
    """Makes clients of a world."""

    def __init__(self, world: Stage) -> None:
        self._world = world

    def make(
        self,
        count: int,
        plan: Plan | Callable[[int], Plan] = _DEFAULT_PLAN,
        proxy: int | None = None,
        *,
        player: str | None = None,
        game: str | None = None,
    ) -> Clients:
        """Make clients that do not connect yet.

        :param plan: of all, or gives that of each by its number.
        :param proxy: where they connect; ``None``: one after the other.
        :param player: who they are, with tickets; ``None``: guests.
        :param game: which they want; not needed where there is one.
        """
        world = self._world
        world.start()
        made = []
        for _ in range(count):
            number = len(world.all_clients)
            where = world.proxies[number % len(world.proxies) if proxy is None else proxy]
            own = plan(number) if callable(plan) else plan
            if world.frames_max is not None:
                own = replace(own, frames=min(own.frames, world.frames_max))
            name = f"player-{number}"
            guest = Auth("guest", name=name, game=game)
            client = Client(
                world.clients_reactor,
                where.address,
                number,
                player or name,
                own,
                world.write,
                guest if player is None else lambda: world.ticket(player, game),
                source=world.address_of(number),
                left_out=number in world.left_out,
                seed=world.seed,
            )
            world.all_clients.append(client)
            made.append(client)
        return Clients(made)

    def batch(
        self,
        count: int,
        plan: Plan | None = None,
        *,
        player: str | None = None,
        game: str | None = None,
    ) -> Clients:
        """Make clients that come now, in order, and stay until they are told to leave."""
        clients = self.make(count, plan or _STAYS, player=player, game=game)
        clients.connect_all()
        return clients


class FarmView:
    """The farm of a world, as its tables have it."""

    def __init__(self, world: Stage) -> None:
        self._world = world

    def counts(self) -> dict[str, int]:
        """``connections``, ``added``, ``removed`` and ``reserved``: the sums over all game servers; ``servers`` that
        are starting or ready, and ``queued`` clients."""
        self._world.start()
        (row,) = self._world.execute(
            "SELECT coalesce(sum(connections), 0), coalesce(sum(connections_added), 0),"
            " coalesce(sum(connections_removed), 0), coalesce(sum(reserved), 0),"
            " coalesce(sum(state IN ('starting', 'ready')), 0),"
            " (SELECT count(*) FROM slots WHERE server IS NULL)"
            " FROM game_servers"
        )
        names = ("connections", "added", "removed", "reserved", "servers", "queued")
        return dict(zip(names, row, strict=True))

    def servers(self) -> Mapping[str, str]:
        """The states of all game servers, by id."""
        self._world.start()
        return dict(self._world.execute("SELECT id, state FROM game_servers ORDER BY id"))

    def assert_counts(self, within: float = 5.0, **expected: int) -> None:
        """Some of :meth:`counts` must become what is expected.

        :param within: seconds.
        """
        world = self._world
        last = self.counts()
        deadline = world.now + within * world.patience
        while any(last[name] != value for name, value in expected.items()):
            if world.now >= deadline:
                found = {name: last[name] for name in expected}
                raise world.failure(f"not within {within:g} s: {expected}; it is {found}")
            world.run_for(0.05)
            last = self.counts()

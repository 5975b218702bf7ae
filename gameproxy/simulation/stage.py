"""What a test has of a world, the same of a simulated one as of a real one."""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gameproxy.auth import issue_ticket
from gameproxy.config import AuthConfig, Config, GameConfig, ProxyConfig, TicketKeyConfig
from gameproxy.gameserver import Game
from gameproxy.messages import Auth
from gameproxy.simulation.chance import entropy
from gameproxy.simulation.clients import Client, Clients
from gameproxy.simulation.handles import ClientFactory, FarmView, ProxyHandle, ServerHandle
from gameproxy.simulation.states import State

T = TypeVar("T")
REACHING_TIME: Final = 60.0
"""Seconds in which clients must get to where they are asserted to be."""
TICKET_KEY: Final = b"of worlds that tests make, and of nothing else"
_TICKETS: Final = TicketKeyConfig(id="world", algorithm="HS256", file="tickets.key")


class WorldFailed(AssertionError):
    """Something does not hold in a world; the text says what and when."""


class Stage(ABC):
    """A world: proxies on one farm, game servers, and clients. It begins at its first use.

    Used in a ``with`` statement it ends with that; otherwise with :meth:`settle` or :meth:`close`, or with the program.

    :param seed: of what clients draw.
    :ivar config: of the proxies.
    :ivar all_clients: all that were ever made.
    """

    patience = 1.0
    """By how much all bounds of time are longer than a test says."""
    config: Config

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.all_clients: list[Client] = []
        self.left_out: frozenset[int] = frozenset()
        """Numbers of clients that never connect."""
        self.frames_max: int | None = None
        """Frames that a client sends at most."""
        self._is_started = False
        self._is_in_with = False
        self._ticket_ids = entropy(seed, "tickets")
        self._clients = ClientFactory(self)
        self._farm = FarmView(self)

    def __enter__(self) -> Self:
        self._is_in_with = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # Its life

    def start(self) -> None:
        """Let it begin, and wait until its proxies serve; later calls do nothing."""
        if not self._is_started:
            self._is_started = True
            self._begin()

    def hydrate(self, state: str | Path | State) -> Clients:
        """Have it begin in a known state.

        :param state: the name of one that comes with gameproxy, the path of a file, or one that is read already.
        :return: the clients that are in already.
        :raises gameproxy.config.ConfigError: there is no such state, or something is wrong with it.
        :raises ValueError: the world has begun.
        """
        from gameproxy.simulation.hydration import hydrate  # which knows the stage

        if self._is_started:
            raise ValueError("this world has begun already: hydrate it before all else")
        return hydrate(self, state)

    @abstractmethod
    def add_game(self, name: str, make: Callable[[], Game], command: Sequence[str] = ()) -> None:
        """Have a game of one's own, before the world begins: ``command = [name]`` in ``[[games]]`` starts it.

        :param make: makes the game in each process of a simulated world.
        :param command: what runs it in a real one.
        """

    def settle(self) -> None:
        """The world heals, all clients leave, and everything must come to rest.

        :raises WorldFailed: it does not, or something is left that should not be.
        """
        self.start()
        self._settle()
        if not self._is_in_with:
            self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of all that it has; doing it twice changes nothing."""

    # Who is there

    @property
    def clients(self) -> ClientFactory:
        """Makes clients."""
        return self._clients

    @property
    def farm(self) -> FarmView:
        """The farm, as its tables have it."""
        return self._farm

    @property
    @abstractmethod
    def proxies(self) -> Sequence[ProxyHandle]:
        """The proxies."""

    @abstractmethod
    def server(self, id: str) -> ServerHandle:
        """A game server.

        :raises KeyError: there is none with that id.
        """

    # Time

    @property
    @abstractmethod
    def now(self) -> float:
        """Seconds since the beginning."""

    @abstractmethod
    def run_for(self, seconds: float) -> None:
        """Let so much time go by."""

    @abstractmethod
    def run_until(
        self, condition: Callable[[], bool], within: float, what: str = "the condition"
    ) -> None:
        """Let time go by until something holds.

        :param within: seconds that it may take.
        :param what: names it, for people.
        :raises WorldFailed: it does not hold by then.
        """

    def wait_for(self, work: Coroutine[Any, Any, T], within: float = 60.0) -> T:
        """Let time go by until a coroutine has ended, such as a client made with :mod:`gameproxy.client`.

        :param work: on Twisted: :class:`gameproxy.loops.on_twisted.TwistedLoop` of :attr:`clients_reactor`.
        :param within: seconds that it may take.
        :return: what comes of it; it raises what that raises.
        """
        self.start()
        results: list[T | Failure] = []
        done = Deferred.fromCoroutine(work).addBoth(results.append)
        try:
            self.run_until(lambda: bool(results), within, "what was to be waited for ends")
        except BaseException:
            done.cancel()
            raise
        (result,) = results
        if isinstance(result, Failure):
            result.raiseException()
        return result

    # What holds

    @abstractmethod
    def failure(self, what: str) -> WorldFailed:
        """An error that says what, and where the world was."""

    def assert_reached(
        self, clients: Iterable[Client], *, selection: bool = False, server: bool = False
    ) -> None:
        """Some clients must get so far.

        :param selection: to the farm, which gives them a slot or lets them wait.
        :param server: to a game server.
        """
        chosen = [client for client in clients if not client.left_out]

        def reached() -> bool:
            for client in chosen:
                if selection and not (client.was_queued or client.was_welcomed):
                    return False
                if server and not client.was_welcomed:
                    return False
            return True

        goal = "a game server" if server else "the selection"
        self.run_until(reached, REACHING_TIME, f"{len(chosen)} clients reach {goal}")

    def assert_ended(self, clients: Iterable[Client], ending: str, within: float = 60.0) -> None:
        """Some clients must come to an end, for one reason.

        :param ending: a close reason, such as ``queue_full`` or ``replaced``.
        :param within: seconds.
        """
        chosen = [client for client in clients if not client.left_out]
        self.run_until(
            lambda: all(client.has_ended for client in chosen), within, f"{len(chosen)} clients end"
        )
        for client in chosen:
            if client.ending != ending:
                raise self.failure(f"client {client.number} ended: {client.ending}, not {ending}")

    # What clients and states need

    def ticket(self, player: str, game: str | None = None) -> Auth:
        """A new ticket of a player, which a proxy of this world takes once, in the next minute."""
        text = issue_ticket(
            _TICKETS.id,
            _TICKETS.algorithm,
            TICKET_KEY,
            player=player,
            jti=self._ticket_ids(16).hex(),
            now=self.clients_reactor.seconds(),
            game=game,
        )
        return Auth("ticket", ticket=text)

    def execute(self, statement: str, **values: object) -> list[tuple[Any, ...]]:
        """Execute SQL on the farm's database.

        :param values: of its named parameters; ``:now`` is the world's time without that.
        :raises sqlite3.Error: it cannot be executed; or there is no database.
        """
        values.setdefault("now", self.clients_reactor.seconds())
        # Never made here: a database that is missing is the proxies' to make again.
        uri = self.config.database_path.as_uri() + "?mode=rw"
        with closing(
            sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)
        ) as connection:
            return connection.execute(statement, values).fetchall()

    def address_of(self, client: int) -> str | None:
        """The address from which a client connects; ``None``: its machine's."""
        return None

    def ban(self, player: str) -> None:
        """Ban a player, in the farm's table."""
        self.execute(
            "INSERT OR IGNORE INTO bans (kind, subject, reason, actor, created_at)"
            " VALUES ('player', :player, 'told so', 'world', :now)",
            player=player,
        )

    @property
    @abstractmethod
    def clients_reactor(self) -> Any:
        """That of the clients."""

    @abstractmethod
    def write(self, *words: object) -> None:
        """Tell what happens."""

    @abstractmethod
    def configure(self, state: State) -> None:
        """Have the proxies and the listed game servers of a state, before all begins."""

    @abstractmethod
    def start_server(self, game: str, temper: Any) -> str:
        """Have a proxy start a game server.

        :return: its id.
        """

    @abstractmethod
    def hydrated(self) -> None:
        """The state is there: the time that the test has begins."""

    @abstractmethod
    def _begin(self) -> None: ...

    @abstractmethod
    def _settle(self) -> None: ...


def default_config() -> Config:
    """Guests, and the game ``echo`` with servers of 16."""
    echo = GameConfig(
        name="echo",
        command=("echo",),
        capacity=16,
        max_servers=100,
        start_timeout=10.0,
        stop_when_idle=30.0,
        stop_grace=3.0,
    )
    proxy = ProxyConfig(drain_grace=5.0, stall_timeout=6.0)
    return Config(proxy=proxy, auth=AuthConfig(guests=True), games=(echo,))


def with_tickets(config: Config, folder: Path) -> Config:
    """A configuration in a world's folder, of proxies that take tickets of :meth:`Stage.ticket`."""
    key = folder / _TICKETS.file
    key.write_bytes(TICKET_KEY)
    key.chmod(0o600)
    auth = config.auth.model_copy(update={"ticket_keys": (*config.auth.ticket_keys, _TICKETS)})
    return config.model_copy(update={"folder": folder, "auth": auth})

"""Whatever two proxies do, and in whatever order: the farm's books balance."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gameproxy.interfaces import AttemptFailed
from gameproxy.reasons import CloseReason
from tests.farm_fixture import Client, World, listed

FAILURES = st.sampled_from(
    [
        AttemptFailed(CloseReason.SERVER_UNREACHABLE, "connection refused"),
        AttemptFailed(CloseReason.HANDSHAKE_FAILED, "bad MAC"),
        AttemptFailed(CloseReason.REFUSED, "full", busy=True),
    ]
)
CLIENTS = st.integers(min_value=0, max_value=30)


class FarmMachine(RuleBasedStateMachine):
    """Clients come, wait, play and leave; servers come and go; proxies are killed; the database is deleted."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        game = {
            "name": "go",
            "command": ["god"],
            "capacity": 2,
            "max_servers": 2,
            "start_timeout": 9.0,
        }
        self.world = World(
            Path(self.folder.name) / "farm.db",
            servers=[listed("a", capacity=1), listed("b", capacity=2), listed("c", game="go")],
            games=[game],
            selection={"queue_timeout": 20.0, "queue_size": 4},
        )
        self.farms = [self.world.proxy(), self.world.proxy()]
        self.clients: list[Client] = []
        self.playing: list[Client] = []

    @rule(
        which=st.integers(0, 1),
        game=st.sampled_from(["chess", "go"]),
        player=st.sampled_from("abcdefgh"),
    )
    def come(self, which: int, game: str, player: str) -> None:
        self.clients.append(self.world.client(self.farms[which], game=game, player=player))

    def choose(self, number: int) -> Client | None:
        return self.clients[number % len(self.clients)] if self.clients else None

    @rule(number=CLIENTS)
    def play(self, number: int) -> None:
        client = self.choose(number)
        if client is not None and client.has_slot() and client not in self.playing:
            self.playing.append(client)
            client.farm.relaying(client.slots[-1])

    @rule(number=CLIENTS, failure=FAILURES)
    def fail(self, number: int, failure: AttemptFailed) -> None:
        client = self.choose(number)
        if client is not None and client.has_slot() and client not in self.playing:
            client.expect(client.farm.try_another(client.slots[-1], failure, client.waiting))

    @rule(number=CLIENTS)
    def leave(self, number: int) -> None:
        client = self.choose(number)
        if client is not None:
            client.result.addErrback(lambda _: None)
            client.result.cancel()
            client.farm.release(client.session)
            self.clients.remove(client)

    @rule(seconds=st.sampled_from([0.0, 0.03, 0.5, 1.0, 6.0]))
    def wait(self, seconds: float) -> None:
        self.world.reactor.pass_time(seconds, 0.05)

    @rule(number=st.integers(0, 9), good=st.booleans())
    def server(self, number: int, good: bool) -> None:
        started = self.world.starter.started
        if started and good:
            self.world.ready(started[number % len(started)])
        elif started:
            self.world.starter.end(started[number % len(started)])

    @rule(state=st.sampled_from(["draining", "ready", "lost"]), server=st.sampled_from("abc"))
    def by_hand(self, state: str, server: str) -> None:
        self.world.sql("UPDATE game_servers SET state = ? WHERE id = ?", state, server)

    @rule(which=st.integers(0, 1))
    def kill(self, which: int) -> None:
        dead = self.farms[which]
        self.world.kill(dead)
        self.clients = [client for client in self.clients if client.farm is not dead]
        self.world.reactor.threads.locked = False
        self.farms[which] = self.world.proxy()

    @rule()
    def lock(self) -> None:
        self.world.reactor.threads.locked = True

    @precondition(lambda self: self.world.reactor.threads.locked)
    @rule()
    def unlock(self) -> None:
        self.world.reactor.threads.locked = False

    @rule()
    def delete(self) -> None:
        if not self.world.reactor.threads.locked:
            for file in self.world.path.parent.glob("farm.db*"):
                file.unlink()
            self.world.reactor.pass_time(1.0, 0.05)

    @invariant()
    def the_books_balance(self) -> None:
        rows: list[Any] = self.world.sql(
            "SELECT id, reserved, connections, connections_added, connections_removed, capacity, "
            "(SELECT count(*) FROM slots WHERE server = id AND slots.state = 'reserved'), "
            "(SELECT count(*) FROM slots WHERE server = id AND slots.state = 'connected') "
            "FROM game_servers"
        )
        for server, reserved, connections, added, removed, capacity, held, played in rows:
            assert (reserved, connections) == (held, played), server
            assert connections == added - removed, server
            assert 0 <= reserved + connections <= capacity, server

    def teardown(self) -> None:
        """When all have left nothing is held, and whoever was evicted was so once."""
        if not hasattr(self, "world"):
            return
        self.world.reactor.threads.locked = False
        for client in self.clients:
            client.farm.release(client.session)
        self.world.reactor.pass_time(25.0, 0.25)
        assert self.world.sql("SELECT * FROM slots") == []
        assert self.world.sql("SELECT total(reserved + connections) FROM game_servers") == [(0.0,)]
        assert len(self.world.evicted) == len(dict.fromkeys(self.world.evicted))
        for farm in self.farms:
            farm.stop()
        self.world.reactor.settle()
        self.folder.cleanup()


FarmMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30)
FarmTests = FarmMachine.TestCase

"""A database that is locked, read-only, full or gone under the running proxy.

Sessions that relay go on; new ones are told ``internal`` with ``retry_after``; and when the database is well again so
is the proxy, by itself, with the farm's numbers right.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from tests.real.rig import (
    Rig,
    leftovers,
)
from tests.real.streams import (
    ERROR,
    PROMPT,
    REFUSED,
    STATUS,
    WELCOME,
    GameServer,
    Script,
    Stream,
    auth,
    message,
    pause,
    promptly,
    until,
)
from tests.real.test_bad_input_tickets import ask, ticket
from tests.real.test_bad_input_tickets import rig as ticket_rig

BUSY_TIMEOUT = 0.2
"""Seconds for which the proxy waits for a lock in these tests, in place of several."""


class Connections:
    """The connections to SQLite that the proxy makes, with what the tests do to them.

    Each obeys the orders when the proxy uses it next, in the proxy's own thread: a connection that two threads use at
    once takes the process down.
    """

    def __init__(self) -> None:
        self._real = sqlite3.connect
        self._orders: list[str] = []

    def connect(self, *args: Any, **settings: Any) -> sqlite3.Connection:
        """In place of :func:`sqlite3.connect`."""
        if settings.get("uri"):  # the tests' own
            return self._real(*args, **settings)
        settings["timeout"] = min(settings.get("timeout", 5.0), BUSY_TIMEOUT)
        orders = self._orders

        class Obedient(sqlite3.Connection):
            obeyed = 0

            def cursor(self, *args: Any) -> sqlite3.Cursor:  # type: ignore[override]
                for order in orders[self.obeyed :]:
                    self.obeyed += 1
                    self.execute(order)
                return super().cursor(*args)

        return self._real(*args, **settings, factory=Obedient)

    @contextmanager
    def under(self, order: str, undo: str) -> Iterator[None]:
        """Give an order to every connection there is and that will be made, and take it back."""
        self._orders.append(order)
        yield
        self._orders.append(undo)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Connections:
    """The proxy's connections to its database."""
    made = Connections()
    monkeypatch.setattr(sqlite3, "connect", made.connect)
    return made


@contextmanager
def locked(rig: Rig) -> Iterator[None]:
    """Another program holds the lock for writing."""
    other = sqlite3.connect(
        f"file:{rig.folder / 'farm.db'}?mode=rw", uri=True, isolation_level=None
    )
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


def farm_files(rig: Rig) -> list[Path]:
    """The database with what belongs to it."""
    return sorted(rig.folder.glob("farm.db*"))


async def turned_away(rig: Rig, **fields: object) -> None:
    """See that a new session is told ``internal`` with ``retry_after``."""
    client = await rig.connect()
    client.send(auth(**{"game": "echo", **fields}))
    error = await rig.refused(client, "internal")
    assert error["retry_after"] > 0


async def recovered(rig: Rig, request: bytes | None = None) -> Stream:
    """See that new sessions are let in again, who ask by this AUTH; until then they are told ``internal``."""
    give_up = reactor.seconds() + PROMPT
    while True:
        client = await rig.connect()
        client.send(request or auth(game="echo"))
        body = await client.body()
        if body[0] == WELCOME:
            await client.echo(b"\x10in")
            return client
        assert body[0] == ERROR, body
        assert b'"internal"' in body and b'"retry_after"' in body, body
        await client.rest()
        await rig.over("internal")
        assert reactor.seconds() < give_up, "it does not recover"
        # Each of these is a line of the log; the proxy tries the database once a second.
        await pause(0.2)


@contextmanager
def read_only(rig: Rig, connections: Connections) -> Iterator[None]:
    """Every write fails with SQLITE_READONLY."""
    with connections.under("PRAGMA query_only = ON", "PRAGMA query_only = OFF"):
        yield


TROUBLES = {"locked": lambda rig, connections: locked(rig), "read-only": read_only}


@pytest.mark.parametrize("trouble", TROUBLES.values(), ids=TROUBLES.keys())
@pytest_twisted.ensureDeferred
async def test_cannot_be_written(tmp_path: Path, connections: Connections, trouble: Any) -> None:
    """While the database cannot be written: who relays goes on, who comes is told internal, who leaves is let go."""
    async with Rig(tmp_path) as rig, rig.canary(lines=20) as canary:
        leaving = await rig.join(name="leaving")
        with trouble(rig, connections):
            for _ in range(3):
                await turned_away(rig)
                await canary.echo(b"\x10during")
            with promptly():
                await rig.leave(leaving)
            await canary.echo(b"\x10during")
        with promptly():
            client = await recovered(rig)
        await rig.leave(client)
        await until(lambda: leftovers(rig, 1))
        assert rig.query("SELECT connections_added FROM game_servers") == [(3,)]
        troubles = [line for line in rig.lines if line.get("event") != "session_end"]
        assert len(troubles) <= 3, troubles  # each kind once, and that it works again


@pytest_twisted.ensureDeferred
async def test_recovers_without_being_asked(tmp_path: Path, connections: Connections) -> None:
    """What could not be written is written as soon as that is possible, though nobody comes."""
    async with Rig(tmp_path) as rig, rig.canary(lines=3):
        leaving = await rig.join(name="leaving")
        with locked(rig):
            await rig.leave(leaving)
            await pause(2 * BUSY_TIMEOUT)
        with promptly():
            await until(lambda: leftovers(rig, 1))


@pytest_twisted.ensureDeferred
async def test_short_lock(tmp_path: Path, connections: Connections) -> None:
    """A lock that is shorter than the busy timeout is only waited for."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        with locked(rig):
            client.send(auth(game="echo"))
            await pause(BUSY_TIMEOUT / 4)
            assert not client.received
        await client.message(WELCOME)
        await rig.leave(client)


@pytest_twisted.ensureDeferred
async def test_lock_during_the_handshake(tmp_path: Path, connections: Connections) -> None:
    """Who has a slot already gets in and relays although the database is locked, and is counted later."""
    challenged: Deferred[None] = Deferred()
    go: Deferred[None] = Deferred()

    async def slow(server: GameServer, stream: Stream) -> None:
        admit = await server.take_admit(stream)
        challenged.callback(None)
        await go
        stream.send(server.admitted(admit))
        await stream.until_close()

    async with (
        Rig(tmp_path, servers=[("slow", "chess", slow)]) as rig,
        rig.canary(lines=3),
    ):
        client = await rig.connect()
        client.send(auth(game="chess"))
        await challenged
        with locked(rig):
            go.callback(None)
            with promptly():
                await client.message(WELCOME)
            await rig.leave(client)
        await until(lambda: leftovers(rig, 1))
        counted = (
            "SELECT connections_added, connections_removed FROM game_servers WHERE id = 'slow'"
        )
        assert rig.query(counted) == [(1, 1)]


@pytest_twisted.ensureDeferred
async def test_lock_while_queued(tmp_path: Path, connections: Connections) -> None:
    """Who waits in the queue gets queue_timeout in time although the database is locked."""

    async def full(server: GameServer, stream: Stream) -> None:
        stream.send(message(REFUSED, code="full", message="x"))
        await stream.rest()

    servers: list[tuple[str, str, Script | int]] = [("full", "chess", full)]
    async with Rig(tmp_path, servers=servers, queue_timeout=0.6) as rig, rig.canary(lines=3):
        client = await rig.connect()
        client.send(auth(game="chess"))
        await client.message(STATUS)
        with locked(rig):
            await rig.refused(client, "queue_timeout")


@pytest_twisted.ensureDeferred
async def test_ticket_is_not_spent(tmp_path: Path, connections: Connections) -> None:
    """A ticket that was turned away because of the database is good when that is well again."""
    token = ticket()
    async with ticket_rig(tmp_path) as rig, rig.canary(lines=15):
        with locked(rig):
            client = await rig.connect()
            client.send(ask(token))
            await rig.refused(client, "internal")
        await rig.leave(await recovered(rig, request=ask(token)))


@pytest_twisted.ensureDeferred
async def test_full(tmp_path: Path, connections: Connections) -> None:
    """When the database cannot grow, who needs more is told internal; who relays goes on, who leaves is let go."""
    async with ticket_rig(tmp_path) as rig, rig.canary(lines=100) as canary:
        leaving = await rig.join(name="leaving")
        ((pages,),) = rig.query("PRAGMA page_count")
        limit = f"PRAGMA max_page_count = {pages}"
        with connections.under(limit, "PRAGMA max_page_count = 1000000"):
            for number in range(80):
                client = await rig.connect()
                client.send(ask(ticket(jti=f"{number:0200}")))
                body = await client.body()
                if body[0] == ERROR:
                    break
                await rig.leave(client)
            assert b'"internal"' in body and b'"retry_after"' in body, body
            await rig.over("internal")
            await canary.echo(b"\x10during")
            with promptly():
                await rig.leave(leaving)
        await rig.leave(await recovered(rig))
        client = await rig.connect()
        client.send(ask(ticket(jti=f"{number:0200}")))
        await client.message(WELCOME)
        await rig.leave(client)


def _delete(rig: Rig) -> None:
    for file in farm_files(rig):
        file.unlink()


def _move_away(rig: Rig) -> None:
    for file in farm_files(rig):
        file.rename(file.with_name(f"old-{file.name}"))


def _replace_with_an_empty_file(rig: Rig) -> None:
    _delete(rig)
    (rig.folder / "farm.db").touch()


def _delete_the_file_alone(rig: Rig) -> None:
    (rig.folder / "farm.db").unlink()


@pytest.mark.parametrize(
    "remove", [_delete, _move_away, _replace_with_an_empty_file, _delete_the_file_alone]
)
@pytest_twisted.ensureDeferred
async def test_deleted(tmp_path: Path, connections: Connections, remove: Any) -> None:
    """A database that is deleted is made again, with the game servers and those who relay in it."""
    async with Rig(tmp_path) as rig, rig.canary(lines=20) as canary:
        leaving = await rig.join(name="leaving")
        staying = await rig.join(name="staying")
        remove(rig)
        await rig.leave(leaving)
        client = await recovered(rig)
        await canary.echo(b"\x10during")
        await staying.echo(b"\x10during")
        await until(lambda: leftovers(rig, 3))
        await rig.leave(client)
        await rig.leave(staying)


@pytest_twisted.ensureDeferred
async def test_deleted_while_nobody_comes(tmp_path: Path, connections: Connections) -> None:
    """A database that is deleted is made again also if nobody comes or goes."""
    async with Rig(tmp_path) as rig, rig.canary(lines=0):
        _delete(rig)
        with promptly():
            await until(lambda: leftovers(rig, 1))


@pytest_twisted.ensureDeferred
async def test_garbage(tmp_path: Path, connections: Connections) -> None:
    """While something stands there that is no database, new sessions are told internal; when it is gone all is well."""
    async with Rig(tmp_path) as rig, rig.canary(lines=20) as canary:
        _delete(rig)
        (rig.folder / "farm.db").write_bytes(b"This is no database. " * 500)
        await turned_away(rig)
        await canary.echo(b"\x10during")
        await turned_away(rig)
        _delete(rig)
        await rig.leave(await recovered(rig))


@pytest_twisted.ensureDeferred
async def test_folder_gone(tmp_path: Path, connections: Connections) -> None:
    """While the folder of the database is gone, new sessions are told internal; when it is back all is well."""
    folder = tmp_path / "farm"
    folder.mkdir()
    async with Rig(folder) as rig, rig.canary(lines=20) as canary:
        shutil.move(folder, tmp_path / "away")
        await turned_away(rig)
        await canary.echo(b"\x10during")
        shutil.move(tmp_path / "away", folder)
        await rig.leave(await recovered(rig))


@pytest_twisted.ensureDeferred
async def test_a_newer_database(tmp_path: Path, connections: Connections) -> None:
    """A database of a newer version, put there meanwhile, is not touched; new sessions are told internal."""
    async with Rig(tmp_path) as rig, rig.canary(lines=20) as canary:
        _delete(rig)
        newer = sqlite3.connect(f"file:{rig.folder / 'farm.db'}?mode=rwc", uri=True)
        newer.execute("PRAGMA user_version = 9999")
        newer.execute("CREATE TABLE of_the_future (x)")
        newer.commit()
        newer.close()
        await turned_away(rig)
        await canary.echo(b"\x10during")
        assert rig.query("SELECT name FROM sqlite_schema") == [("of_the_future",)]
        _delete(rig)
        await rig.leave(await recovered(rig))

"""A game server's place in the farm, and its row in the farm's database."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeVar

from gameproxy.keys import read_key_file
from gameproxy.loops import Loop

T = TypeVar("T")

BUSY_TIMEOUT: Final = 10.0
"""Seconds to wait while another program writes to the farm's database."""


@dataclass(frozen=True, slots=True)
class Place:
    """A game server's place in a farm.

    :param key: the game server's 32-byte key.
    :param host: the IP to listen at.
    :param port: where to listen; 0: any free one.
    :param capacity: most sessions at once.
    :param farm: the database's file, or ``None`` for a game server that the proxy does not start.
    """

    server: str
    key: bytes = field(repr=False)
    host: str
    port: int
    capacity: int
    farm: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Place:
        """What the proxy that started this process has given it.

        :raises KeyError: a variable is missing.
        :raises ~gameproxy.keys.KeyFileError: the key cannot be read.
        """
        return cls(
            server=environment["GAMEPROXY_SERVER_ID"],
            key=read_key_file(Path(environment["GAMEPROXY_SECRET_FILE"])),
            host=environment["GAMEPROXY_HOST"],
            port=int(environment["GAMEPROXY_PORT"]),
            capacity=int(environment["GAMEPROXY_CAPACITY"]),
            farm=environment["GAMEPROXY_FARM"].removeprefix("sqlite:///"),
        )


class FarmRow:
    """A game server's row in the farm's database. It is written in a thread, one thing after the other.

    All methods fail with :class:`sqlite3.Error` when the database cannot be used at the moment.

    :param file: the database's.
    :param server: the game server's id.
    """

    def __init__(self, file: str, server: str, loop: Loop) -> None:
        self._file = Path(file).absolute()
        self._server = server
        self._loop = loop
        self._under_way: Awaitable[None] | None = None
        self._has_reported = False

    async def announce(self, host: str, port: int) -> bool:
        """Say that the game server listens, and is ready; whether the farm has waited for it."""
        now = self._loop.seconds()

        def write(database: sqlite3.Connection) -> bool:
            values = (host, port, now, self._server)
            return database.execute(_ANNOUNCE, values).rowcount == 1

        return await self._in_turn(write)

    async def beat(self, load: float | None) -> str | None:
        """Give a sign of life.

        :param load: 0 to 1; once some load was reported, ``None`` takes it back.
        :return: ``there``; or ``closed``, or ``None`` when there is no such row, nor perhaps a database.
        """
        now = self._loop.seconds()
        self._has_reported = self._has_reported or load is not None
        statement, loads = (_BEAT_WITH_LOAD, (load,)) if self._has_reported else (_BEAT, ())

        def write(database: sqlite3.Connection) -> str | None:
            if database.execute(statement, (*loads, now, self._server)).rowcount:
                return "there"
            return "closed" if database.execute(_FIND, (self._server,)).fetchone() else None

        try:
            return await self._in_turn(write)
        except sqlite3.OperationalError:
            if self._file.exists():
                raise
            return None

    async def leave(self) -> None:
        """Say that no new players are wanted."""
        now = self._loop.seconds()
        await self._in_turn(lambda database: database.execute(_LEAVE, (now, self._server)))

    async def _in_turn(self, work: Callable[[sqlite3.Connection], T]) -> T:
        while self._under_way is not None:
            await self._under_way
        done = self._under_way = self._loop.txaio.create_future()
        try:
            return await self._loop.in_thread(lambda: self._with_database(work))
        finally:
            self._under_way = None
            self._loop.txaio.resolve(done)

    def _with_database(self, work: Callable[[sqlite3.Connection], T]) -> T:
        # Never made here: a database that is missing is the proxy's to make again.
        uri = self._file.as_uri() + "?mode=rw"
        database = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
        try:
            return work(database)
        finally:
            database.close()


_ANNOUNCE: Final = """
    UPDATE game_servers SET state = 'ready', host = ?, port = ?, heartbeat_at = ?
    WHERE id = ? AND state = 'starting'"""
_BEAT: Final = "UPDATE game_servers SET heartbeat_at = ? WHERE id = ? AND state <> 'closed'"
_BEAT_WITH_LOAD: Final = """
    UPDATE game_servers SET reported_load = ?, heartbeat_at = ?
    WHERE id = ? AND state <> 'closed'"""
_FIND: Final = "SELECT 1 FROM game_servers WHERE id = ?"
_LEAVE: Final = """
    UPDATE game_servers SET state = 'draining', heartbeat_at = ? WHERE id = ? AND state = 'ready'"""

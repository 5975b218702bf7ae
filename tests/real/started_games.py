"""A proxy in this process that starts game servers, and clients of it."""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint

from gameproxy.client import Client, Guest, Session
from gameproxy.config import parse
from gameproxy.interfaces import SessionRecord
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.service import GameProxy
from tests.game_servers import end_game_servers
from tests.real.streams import until

PATIENCE = 15.0
LOGGED = re.compile(r"\d{4}-\d\d-\d\d.\d\d:\d\d")


class StartedGames:
    """A proxy, configured with TOML, in a folder that has the games' programs.

    :ivar records: of sessions that are over.
    """

    def __init__(self, folder: Path, toml: str) -> None:
        self.folder = folder
        self.records: list[SessionRecord] = []
        self.proxy = GameProxy(
            parse(toml, folder),
            reactor,
            endpoints=[TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")],
            on_session_end=self.records.append,
        )

    async def __aenter__(self) -> Self:
        self.proxy.startService()
        await self.proxy.started
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            end_game_servers(self.folder / "farm.db")
            await self.until(lambda: not self.rows("state <> 'closed' AND pid IS NOT NULL"))
        finally:
            await self.proxy.stopService()
            shutil.rmtree(self.folder / "farm.servers", ignore_errors=True)

    async def connect(self, name: str, game: str, **properties: object) -> Session:
        """A guest comes in.

        :raises gameproxy.client.Refused: it is not let in.
        """
        port = self.proxy.ports[0].getHost().port
        guest = Guest(name, game=game, properties=properties)
        return await within(Client(TwistedLoop(reactor), "127.0.0.1", port, guest).connect())

    def rows(self, which: str = "1") -> list[tuple[str, str, int, int, float | None]]:
        """The started game servers: id, state, connections, pid, and reported load."""
        file = f"file:{self.folder / 'farm.db'}?mode=rw"  # it is the proxy's to make
        with closing(sqlite3.connect(file, uri=True, timeout=5)) as database:
            return database.execute(
                "SELECT id, state, connections, pid, reported_load FROM game_servers "
                f"WHERE origin = 'started' AND {which} ORDER BY started_at, id"
            ).fetchall()

    def log(self, game: str) -> str:
        """What the game's servers have written."""
        logs = sorted((self.folder / "farm.servers").glob(f"{game}-*.log"))
        return "".join(log.read_text() for log in logs)

    def said(self, game: str) -> list[str]:
        """What the game's servers have printed, without what was logged."""
        lines = self.log(game).splitlines()
        return [line for line in lines if not LOGGED.match(line)]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        await until(lambda: [] if condition() else ["it does not happen"], within=PATIENCE)


async def within(what: Any) -> Any:
    """What comes of something, which must not take too long."""
    return await Deferred.fromCoroutine(_whole(what)).addTimeout(PATIENCE, reactor)


async def _whole(what: Any) -> Any:
    return await what

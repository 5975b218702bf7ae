"""Crowds of clients, at several proxies that share one database, with game servers that count for themselves.

The proxies are processes, ``twist gameproxy``; the game servers are what they start: :mod:`tests.real.crowd_game`.
The clients are streams of this process.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from contextlib import closing, suppress
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.protocol import ClientCreator

from tests.program import Program
from tests.real.streams import CLOSE, ERROR, STATUS, WELCOME, Stream, auth, message, pause

PATIENCE = 40.0
"""Seconds after which what does not happen has failed: long, for a machine that has much else to do."""
GAME_SERVER = Path(__file__).with_name("crowd_game.py")
TICKET_KEY = b"not a secret, but thirty-two bytes"
T = TypeVar("T")


class Refused(Exception):
    """The proxy said ERROR.

    :ivar code: its code.
    :ivar error: all of it.
    """

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error)
        self.code: str = error["code"]
        self.error = error


class Visitor(Stream):
    """A client.

    :ivar told: every STATUS that it got: state and position.
    """

    def __init__(self) -> None:
        super().__init__()
        self.told: list[tuple[str, int | None]] = []

    async def change(self) -> None:
        waiting: Deferred[None] = Deferred()
        self._changed.append(waiting)
        await waiting.addTimeout(PATIENCE, reactor)

    async def heard(self) -> dict[str, Any] | None:
        """Take the next frame, before the game: WELCOME's JSON, or ``None`` for a STATUS, which is noted.

        :raises Refused: it was ERROR.
        """
        body = await self.body()
        fields = dict(json.loads(body[1:]))
        if body[0] == STATUS:
            self.told.append((fields["state"], fields.get("position")))
            return None
        if body[0] == ERROR:
            raise Refused(fields)
        assert body[0] == WELCOME, body
        return fields

    async def welcomed(self) -> dict[str, Any]:
        """WELCOME's JSON, however long it takes.

        :raises Refused: it was ERROR.
        """
        while (welcome := await self.heard()) is None:
            pass
        return welcome

    async def waits_at(self, position: int) -> None:
        """Until it has been told this position."""
        while not self.told or self.told[-1][1] != position:
            assert await self.heard() is None, "WELCOME"

    async def closed(self) -> str:
        """The code of the CLOSE that ends the stream; empty when there was none."""
        bodies = await self.rest()
        if not bodies or bodies[-1][0] != CLOSE:
            return ""
        return str(json.loads(bodies[-1][1:])["code"])

    def say_close(self) -> None:
        """Say CLOSE, and end the connection."""
        self.send(message(CLOSE, code="left", message="bye"))
        self.close()


async def together(coroutines: Iterable[Coroutine[Deferred[Any], Any, T]]) -> list[T]:
    """Do all of it at once; the first failure is raised."""
    started = [Deferred.fromCoroutine(one) for one in coroutines]
    try:
        return list(await gatherResults(started, consumeErrors=True))
    except Exception as error:
        raise getattr(error, "subFailure", error).value from None


async def until(what: Callable[[], object], within: float = PATIENCE) -> None:
    """Until it is true."""
    give_up = reactor.seconds() + within
    while not what():
        assert reactor.seconds() < give_up, "it does not happen"
        await pause(0.02)


class Town:
    """Some proxies on one database, in a folder.

    :param game: more of ``[[games]]``, as TOML.
    :param proxies: how many.
    :param settings: more of the configuration, as TOML, section by section.
    """

    def __init__(self, folder: Path, game: str, proxies: int = 2, **settings: str) -> None:
        self.folder = folder
        self.proxies: list[Program] = []
        self.ports: list[int] = []
        self._wanted = proxies
        self._jtis = count()
        (folder / "web.key").write_bytes(TICKET_KEY)
        (folder / "web.key").chmod(0o600)
        (folder / "gameproxy.toml").write_text(f"""
            [proxy]
            listen = ["tcp:0:interface=127.0.0.1"]
            database = "sqlite:///farm.db"
            drain_grace = 0.05
            {settings.get("proxy", "")}
            [auth]
            guests = true
            ticket_keys = [{{ id = "web", algorithm = "HS256", file = "web.key" }}]
            {settings.get("auth", "")}
            [selection]
            {settings.get("selection", "")}
            [[games]]
            name = "crowd"
            command = {json.dumps([sys.executable, "-I", "-S", str(GAME_SERVER)])}
            {game}
        """)

    async def __aenter__(self) -> Self:
        # One after the other, as the first makes the secret.
        try:
            for _ in range(self._wanted):
                await self.add_proxy()
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def add_proxy(self) -> None:
        """Start one more."""
        command = [sys.executable, "-m", "twisted", "--log-format", "text", "gameproxy"]
        proxy = Program([*command, "--config", "gameproxy.toml"], self.folder)
        self.proxies.append(proxy)
        match = await proxy.says(r"ClientFactory starting on (\d+)")
        self.ports.append(int(match[1]))
        await proxy.says("Starting reactor")

    async def _end(self) -> None:
        for proxy in self.proxies:
            with suppress(Exception):
                proxy.transport.signalProcess(signal.SIGCONT)
        try:
            await gatherResults([proxy.end() for proxy in self.proxies])
        finally:
            if (self.folder / "farm.db").exists():
                for (pid,) in self.query("SELECT pid FROM game_servers WHERE state <> 'closed'"):
                    with suppress(ProcessLookupError, TypeError):
                        os.killpg(pid, signal.SIGKILL)
        for proxy in self.proxies:
            assert "Traceback" not in proxy.output, proxy.output

    # Clients

    async def connect(self, proxy: int = 0) -> Visitor:
        """A client that has said nothing yet."""
        creator = ClientCreator(reactor, Visitor)
        visitor: Visitor = await creator.connectTCP(
            "127.0.0.1", self.ports[proxy % len(self.ports)], timeout=PATIENCE
        )
        return visitor

    async def ask(self, name: str, proxy: int = 0) -> Visitor:
        """A client that has said AUTH, as a guest."""
        visitor = await self.connect(proxy)
        visitor.send(auth(name=name))
        return visitor

    async def join(self, name: str, proxy: int = 0) -> Visitor:
        """A client that is in the game, a guest."""
        visitor = await self.ask(name, proxy)
        await visitor.welcomed()
        return visitor

    async def show(self, ticket: str, proxy: int = 0) -> Visitor:
        """A client that has said AUTH, with a ticket."""
        visitor = await self.connect(proxy)
        visitor.send(auth(mechanism="ticket", name=None, ticket=ticket))
        return visitor

    def ticket(self, player: str) -> str:
        """A ticket (RFC 7519, HS256)."""
        claims = {
            "sub": player,
            "exp": time.time() + 200,
            "aud": "gameproxy",
            "jti": f"{next(self._jtis)}",
        }
        parts = [{"alg": "HS256", "typ": "JWT", "kid": "web"}, claims]
        text = b".".join(_base64(json.dumps(part).encode()) for part in parts)
        seal = _base64(hmac.digest(TICKET_KEY, text, hashlib.sha256))
        return (text + b"." + seal).decode()

    # The game servers

    def say(self, word: str) -> None:
        """Tell the game servers something: see :mod:`tests.real.crowd_game`."""
        (self.folder / word).touch()

    def unsay(self, word: str) -> None:
        """Take that back."""
        (self.folder / word).unlink()

    def events(self, event: str) -> list[dict[str, Any]]:
        """What happened to the game servers, as they tell it, in order of time."""
        found = []
        for log in (self.folder / "farm.servers").glob("*.log"):
            for line in log.read_text().splitlines():
                assert line.startswith("{"), log.read_text()
                found.append(json.loads(line))
        return sorted(
            (one for one in found if one["event"] == event), key=lambda one: float(one["time"])
        )

    def admissions(self) -> Counter[str]:
        """How often each player was let into a game, as the game servers tell it."""
        return Counter(one["player"].removeprefix("guest:") for one in self.events("admitted"))

    def most_present(self) -> int:
        """The most players that any game server had at once, as the game servers tell it."""
        return max(one["present"] for one in self.events("admitted"))

    # The table

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with closing(sqlite3.connect(self.folder / "farm.db", timeout=30)) as database:
            rows = database.execute(sql, values).fetchall()
            database.commit()
            return rows

    def states(self) -> Counter[str]:
        """How many game servers are in each state."""
        return Counter(state for (state,) in self.query("SELECT state FROM game_servers"))

    def sums(self) -> tuple[int, int, int]:
        """Of all game servers: reserved, connections, and connections_added - connections_removed."""
        ((reserved, connections, balance),) = self.query(
            "SELECT sum(reserved), sum(connections), sum(connections_added - connections_removed)"
            " FROM game_servers"
        )
        return reserved, connections, balance

    async def settled(self, sessions: int) -> None:
        """Until the table knows of so many sessions that relay, and of nothing else."""
        wanted = (0, sessions, sessions)
        slots = "SELECT count(*), total(state = 'connected') FROM slots"
        try:
            await until(
                lambda: self.sums() == wanted and self.query(slots) == [(sessions, sessions)]
            )
        except AssertionError:
            raise AssertionError(f"{self.sums()}, {self.query(slots)}: not {sessions}") from None


def _base64(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")

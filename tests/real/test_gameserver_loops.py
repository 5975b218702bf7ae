"""gameproxy.gameserver in processes of its own, on Twisted and on asyncio, behind a proxy that starts them"""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.task import deferLater

from gameproxy.client import Refused, Session, SessionEnded
from tests.program import ROOT
from tests.real.started_games import StartedGames, within

GAME = Path(__file__).with_name("sdk_game.py")


@dataclass
class Games:
    """Makes a proxy that starts the game on one of the loops, two game servers of it at most."""

    loop: str
    folder: Path

    def __call__(self) -> StartedGames:
        command = json.dumps([sys.executable, str(GAME), self.loop])
        toml = f"""
            [proxy]
            drain_grace = 0.1
            [auth]
            guests = true
            [[games]]
            name = "sdk"
            command = {command}
            capacity = 4
            max_servers = 2
            stop_grace = 5.0
        """
        return StartedGames(self.folder, toml)


@pytest.fixture(params=["twisted", "asyncio"])
def games(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Games:
    """The game on each of the loops."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return Games(request.param, tmp_path)


async def receive(session: Session) -> bytes:
    """The next frame."""
    frame: bytes = await within(session.receive())
    return frame


async def ended(session: Session) -> str:
    """The code that a session ends with; frames that come before are lost."""
    with pytest.raises(SessionEnded) as told:
        while True:
            await receive(session)
    return str(told.value.ending.code)


@pytest_twisted.ensureDeferred
async def test_frames(games: Games) -> None:
    """Frames keep their order, thousands of them, those that are answered late among them; settings come first. The
    reactor of Twisted is loaded where the game runs on it, and nowhere else."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        bodies = [b"\x10%d" % number for number in range(5000)]
        bodies[10:10] = [b"\x10late a", b"\x10late b"]
        for body in bodies:
            ann.send(body)
        for body in bodies:
            assert await receive(ann) == body
        assert ann.settings == b"settings of guest:ann"
        ann.send(b"\x10modules")
        assert await receive(ann) == b"\x10" + str(games.loop == "twisted").encode()
        await within(ann.leave())
        await started.until(lambda: "left guest:ann" in started.log("sdk"))
        assert started.said("sdk") == [
            "started",
            "joined guest:ann",
            "left guest:ann",
        ]


@pytest_twisted.ensureDeferred
async def test_refused(games: Games) -> None:
    """Whom the game refuses is told so, and leaves its place to others."""
    async with games() as started:
        for _ in range(5):
            with pytest.raises(Refused) as refused:
                await started.connect("bob", "sdk", refuse=True)
            assert (refused.value.code, refused.value.message) == ("refused", "You asked for it.")
        players = [await started.connect(name, "sdk") for name in ("ann", "bob", "eve", "mal")]
        assert len({player.welcome.server for player in players}) == 1
        for player in players:
            await within(player.leave())


@pytest_twisted.ensureDeferred
async def test_failure(games: Games) -> None:
    """A game that fails with a player ends that session; others play on, and the log says why."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        bob = await started.connect("bob", "sdk")
        bob.send(b"\x10boom")
        bob.send(b"\x10never answered")
        assert await ended(bob) == "internal"
        ann.send(b"\x10still here")
        assert await receive(ann) == b"\x10still here"
        await started.until(lambda: "left guest:bob" in started.log("sdk"))
        assert "ZeroDivisionError: asked for" in started.log("sdk")
        assert "A game has failed with <Player 'guest:bob'" in started.log("sdk")
        await within(ann.leave())


@pytest_twisted.ensureDeferred
async def test_does_not_read(games: Games) -> None:
    """A player who takes nothing of 64 MiB is let go of; others play on."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        bob = await started.connect("bob", "sdk")
        bob.send(b"\x10flood")  # whose frames nobody receives: so many wait, and no more are read
        await started.until(lambda: "left guest:bob" in started.log("sdk"))
        assert "<Player 'guest:bob'" in started.log("sdk")
        assert "does not take what is sent" in started.log("sdk")
        ann.send(b"\x10still here")
        assert await receive(ann) == b"\x10still here"
        await within(ann.leave())
        bob.abort()


@pytest_twisted.ensureDeferred
async def test_terminated(games: Games) -> None:
    """At SIGTERM players are told, and it ends in order."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        ((_, _, _, pid, _),) = started.rows()
        os.kill(pid, signal.SIGTERM)
        assert await ended(ann) == "draining"
        await started.until(lambda: started.rows()[0][1] == "closed")
        lines = started.said("sdk")
        assert lines == ["started", "joined guest:ann", "draining", "left guest:ann", "stopped"]


@pytest_twisted.ensureDeferred
async def test_plays_on(games: Games) -> None:
    """A game that plays on at SIGTERM is sent nobody any more, and ends when the last has left."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        ann.send(b"\x10play on")
        await receive(ann)
        ((server, _, _, pid, _),) = started.rows()
        os.kill(pid, signal.SIGTERM)
        await started.until(lambda: started.rows()[0][1] == "draining")
        bob = await started.connect("bob", "sdk")
        assert bob.welcome.server != server
        ann.send(b"\x10still here")
        assert await receive(ann) == b"\x10still here"
        await within(ann.leave())
        await started.until(lambda: started.rows(f"id = '{server}'")[0][1] == "closed")
        await within(bob.leave())


@pytest_twisted.ensureDeferred
async def test_reserved(games: Games) -> None:
    """A game server that is reserved gets nobody, and the farm knows at once."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        ann.send(b"\x10reserve")
        await receive(ann)
        await started.until(lambda: started.rows()[0][4] == 1.0)
        bob = await started.connect("bob", "sdk")
        assert bob.welcome.server != ann.welcome.server
        await within(ann.leave())
        await within(bob.leave())


@pytest_twisted.ensureDeferred
async def test_shuts_down(games: Games) -> None:
    """A game that ends its game server ends in order, players told; the next player gets another one."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        ann.send(b"\x10shutdown")
        assert await ended(ann) == "draining"
        await started.until(lambda: started.rows()[0][1] == "closed")
        assert started.said("sdk")[-1] == "stopped"
        bob = await started.connect("bob", "sdk")
        await within(bob.leave())


@pytest_twisted.ensureDeferred
async def test_database_deleted(games: Games) -> None:
    """When the farm's database is deleted players play on, and their game server stands in the new one."""
    async with games() as started:
        ann = await started.connect("ann", "sdk")
        await started.until(lambda: started.rows("connections = 1"))
        before = started.rows()
        await deferLater(reactor, 1.5)  # in which the proxy looks at its farm, and knows all of it
        for name in ("farm.db", "farm.db-wal", "farm.db-shm"):
            (games.folder / name).unlink(missing_ok=True)
        await started.until(lambda: _rows(started) == before)
        ann.send(b"\x10still here")
        assert await receive(ann) == b"\x10still here"
        await within(ann.leave())


def _rows(started: StartedGames) -> object:
    try:
        return started.rows()
    except sqlite3.Error:  # there is none yet
        return None

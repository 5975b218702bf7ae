"""docs/gameservers: the games on the page, played behind a proxy with the page's configuration"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_twisted

from gameproxy.client import Refused, Session, SessionEnded
from tests.program import ROOT
from tests.real.started_games import StartedGames, within

BLOCK = re.compile(r"^```(?:python|toml)\n# games/(\S+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PAGE = (ROOT / "docs" / "gameservers.md").read_text("utf-8")
FILES = dict(BLOCK.findall(PAGE))


@asynccontextmanager
async def games(folder: Path) -> AsyncIterator[StartedGames]:
    """The page's games behind the page's proxy."""
    for name, text in FILES.items():
        (folder / name).write_text(text, "utf-8")
    toml = FILES["gameproxy.toml"].replace('"python"', json.dumps(sys.executable))
    async with StartedGames(folder, toml) as started:
        yield started


async def receive(session: Session) -> bytes:
    """The next frame."""
    frame: bytes = await within(session.receive())
    return frame


@pytest_twisted.ensureDeferred
async def test_echo(tmp_path: Path) -> None:
    """The smallest game is a whole game server, of less than 20 lines: what is sent comes back."""
    assert len(FILES["echo.py"].splitlines()) < 20
    async with games(tmp_path) as started:
        bob = await started.connect("bob", "echo")
        bob.send(b"\x10hello")
        assert await receive(bob) == b"\x10hello"
        await within(bob.leave())


@pytest_twisted.ensureDeferred
async def test_meadow(tmp_path: Path) -> None:
    """Settings come first, all see all moves ten times a second, the farm knows the load, and who asks too much is
    kicked and banned."""
    async with games(tmp_path) as started:
        ann = await started.connect("ann", "meadow")
        assert (await receive(ann))[:1] == b"\x11"
        assert json.loads(ann.settings or b"") == {"width": 100, "height": 100}
        bob = await started.connect("bob", "meadow")
        frame = await receive(ann)
        while frame[:1] == b"\x11":
            frame = await receive(ann)
        assert frame == b"\x12guest:bob is here"
        bob.send(b"\x10\x07\x09")
        while json.loads((await receive(ann))[1:]).get("guest:bob") != [7, 9]:
            pass
        bob.send(b"\x12/shutdown")
        with pytest.raises(SessionEnded) as told:
            while True:
                await receive(bob)
        assert told.value.ending.code == "kicked"
        with pytest.raises(Refused) as refused:
            await started.connect("bob", "meadow")
        assert refused.value.code == "banned"
        ann.leave()
        await started.until(lambda: started.rows()[0][4] is not None)


@pytest_twisted.ensureDeferred
async def test_duel(tmp_path: Path) -> None:
    """Who is too new is refused; two play, a third gets another game server; who stays wins, and the game server
    ends by itself."""
    async with games(tmp_path) as started:
        with pytest.raises(Refused) as refused:
            await started.connect("new", "duel", level=1)
        assert (refused.value.code, refused.value.message) == (
            "refused",
            "Win three rounds elsewhere first.",
        )
        ann = await started.connect("ann", "duel", level=3)
        bob = await started.connect("bob", "duel", level=3)
        assert await receive(ann) == await receive(bob) == b"\x10begin"
        eve = await started.connect("eve", "duel", level=3)
        assert ann.welcome.server == bob.welcome.server != eve.welcome.server
        ann.send(b"\x10parry")
        assert await receive(bob) == b"\x10parry"
        await within(ann.leave())
        with pytest.raises(SessionEnded) as told:
            await receive(bob)
        assert (told.value.ending.code, told.value.ending.message) == (
            "left",
            "The other one gave up: you win.",
        )
        duel = ann.welcome.server
        await started.until(lambda: started.rows(f"id = '{duel}' AND state = 'closed'"))
        assert "Traceback" not in started.log("duel")
        await within(eve.leave())


@pytest_twisted.ensureDeferred
async def test_hall(tmp_path: Path) -> None:
    """Visits are counted, on asyncio, from visit to visit."""
    async with games(tmp_path) as started:
        for visit in range(3):
            ann = await started.connect("../ann", "hall")
            told = f"\x10You were here {visit} times before."
            assert await receive(ann) == told.encode()
            await within(ann.leave())
        assert started.log("hall") == ""

"""docs/examples: programs that embed the proxy, run as docs/embedding says"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from gameproxy.client import Client, Guest, Password, Refused, Ticket
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.messages import Auth
from tests.game_servers import end_game_servers
from tests.program import ROOT, Program

EXAMPLES = ROOT / "docs" / "examples"


async def visit(port: int, auth: Auth) -> tuple[str, bytes]:
    """One whole session: the player's name, and what came back for a frame."""
    session = await Client(TwistedLoop(reactor), "127.0.0.1", port, auth).connect()
    assert session.welcome is not None
    async with session:
        session.send(b"\x10hello")
        return session.welcome.player, await session.receive()


async def refused(port: int, auth: Auth) -> str:
    """The code with which somebody is not let in."""
    with pytest.raises(Refused) as refusal:
        await visit(port, auth)
    return refusal.value.code


@pytest_twisted.ensureDeferred
async def test_application(tmp_path: Path) -> None:
    """The .tac lets a member in and nobody else, hears of the session's end, and ends at SIGTERM."""
    twistd = str(Path(sys.executable).parent / "twistd")
    arguments = [twistd, "-n", "-y", str(EXAMPLES / "embedded.tac")]
    program = Program(arguments, tmp_path, {"PORT": "0"})
    try:
        port = int((await program.says(r"Listening on port (\d+)"))[1])
        assert await visit(port, Password("ana", "correct horse")) == ("ana", b"\x10hello")
        await program.says(r"'ana' played \d+ s on echo-\w+: left")
        assert await refused(port, Password("ana", "wrong")) == "auth_failed"
        assert await refused(port, Guest("bob")) == "auth_failed"
    finally:
        status = await program.end()
        end_game_servers(tmp_path / "farm.db")
    assert status in (0, -signal.SIGTERM), program.output


async def fetch(port: int, path: str, form: bytes | None = None) -> str:
    """What a web site answers."""
    url = f"http://127.0.0.1:{port}/{path}"
    answer: bytes = await deferToThread(lambda: urlopen(url, form).read())
    return answer.decode()


@pytest_twisted.ensureDeferred
async def test_site(tmp_path: Path) -> None:
    """A code of the web site lets its player in, once, and the site shows who has played."""
    twistd = str(Path(sys.executable).parent / "twistd")
    arguments = [twistd, "-n", "-y", str(EXAMPLES / "site.tac")]
    program = Program(arguments, tmp_path, {"PORT": "0", "WEB_PORT": "0"})
    try:
        web = int((await program.says(r"Site starting on (\d+)"))[1])
        port = int((await program.says(r"gameproxy serves echo at 127.0.0.1:(\d+)"))[1])
        code = await fetch(web, "play", b"player=ana")
        assert await visit(port, Ticket(code)) == ("ana", b"\x10hello")
        await program.says("ended: left")
        assert await fetch(web, "played") == "ana: 1\n"
        assert await refused(port, Ticket(code)) == "auth_failed"
        assert await refused(port, Guest("ana")) == "auth_failed"
    finally:
        status = await program.end()
        end_game_servers(tmp_path / "farm.db")
    assert status in (0, -signal.SIGTERM), program.output


@pytest_twisted.ensureDeferred
async def test_program(tmp_path: Path) -> None:
    """The program with its own game server has sessions, and ends at SIGTERM."""
    program = Program([sys.executable, str(EXAMPLES / "embedded.py")], tmp_path, {"PORT": "0"})
    try:
        port = int((await program.says(r"Listening on port (\d+)"))[1])
        assert await visit(port, Guest("bob")) == ("guest:bob", b"\x10hello")
    finally:
        status = await program.end()
    assert status in (0, -signal.SIGTERM), program.output

"""docs/examples: programs that embed the proxy, run as docs/embedding says"""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol

from gameproxy.gameclient import End, Ending, GameClient
from gameproxy.messages import Auth, Welcome
from tests.game_servers import end_game_servers
from tests.program import ROOT, Program

EXAMPLES = ROOT / "docs" / "examples"


class OneFrame(GameClient):
    """Sends a frame, and leaves when one has come."""

    def __init__(self, auth: Auth) -> None:
        super().__init__(reactor, auth)
        self.player = ""
        self.got: list[bytes] = []
        self.over: Deferred[Ending] = Deferred()

    def welcomed(self, welcome: Welcome) -> None:
        self.player = welcome.player
        self.send(b"\x10hello")

    def received(self, body: bytes) -> None:
        self.got.append(body)
        self.leave()

    def ended(self, ending: Ending) -> None:
        self.over.callback(ending)


async def visit(port: int, auth: Auth) -> tuple[OneFrame, Ending]:
    """One whole session."""
    client = OneFrame(auth)
    await connectProtocol(TCP4ClientEndpoint(reactor, "127.0.0.1", port), client)
    return client, await client.over.addTimeout(30, reactor)


@pytest_twisted.ensureDeferred
async def test_application(tmp_path: Path) -> None:
    """The .tac lets a member in and nobody else, hears of the session's end, and ends at SIGTERM."""
    twistd = str(Path(sys.executable).parent / "twistd")
    arguments = [twistd, "-n", "-y", str(EXAMPLES / "embedded.tac")]
    program = Program(arguments, tmp_path, {"PORT": "0"})
    try:
        port = int((await program.says(r"Listening on port (\d+)"))[1])
        ana = Auth("password", username="ana", password="correct horse")
        client, ending = await visit(port, ana)
        assert (client.player, client.got, ending.end) == ("ana", [b"\x10hello"], End.LEFT)
        await program.says(r"'ana' played \d+ s on echo-\w+: left")
        _, refused = await visit(port, Auth("password", username="ana", password="wrong"))
        assert (refused.end, refused.code) == (End.REFUSED, "auth_failed")
        _, refused = await visit(port, Auth("guest", name="bob"))
        assert (refused.end, refused.code) == (End.REFUSED, "auth_failed")
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
        client, ending = await visit(port, Auth("guest", name="bob"))
        assert (client.player, client.got, ending.end) == ("guest:bob", [b"\x10hello"], End.LEFT)
    finally:
        status = await program.end()
    assert status in (0, -signal.SIGTERM), program.output

"""Real input: programs that share no code with gameproxy play through it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from gameproxy.config import Config
from gameproxy.interfaces import SessionRecord
from gameproxy.service import GameProxy

HERE = Path(__file__).parent
NODE_CLIENT = HERE / "node" / "client.js"
NODE_GAME_SERVER = HERE / "node" / "game_server.js"

needs_node = pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
needs_godot = pytest.mark.skipif(
    not shutil.which("godot3-server"), reason="Debian's godot3-server is not installed"
)
needs_quarry = pytest.mark.skipif(
    importlib.util.find_spec("quarry.net") is None,  # the folder beside this file is called so too
    reason="quarry is not installed (tests/interop/quarry/requirements.txt)",
)


class Rig:
    """A proxy on a free port, with what it says of its sessions; ends what its farm has started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: list[SessionRecord] = []
        self._enough: tuple[int, Deferred[None]] | None = None
        self._proxies: list[GameProxy] = []

    async def start(self, **sections: Any) -> int:
        """Start a proxy.

        :return: the port for its clients.
        """
        config = Config.model_validate({"folder": self.folder, **sections})
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        proxy = GameProxy(config, reactor, endpoints=[endpoint], on_session_end=self._session_ended)
        self._proxies.append(proxy)
        proxy.startService()
        await proxy.started
        return proxy.ports[0].getHost().port

    async def until_ended(self, count: int) -> list[SessionRecord]:
        """Wait until so many sessions are over: a client has gone a little before its session."""
        if len(self.ended) < count:
            self._enough = count, Deferred()
            await self._enough[1]
        return self.ended

    def _session_ended(self, record: SessionRecord) -> None:
        self.ended.append(record)
        if self._enough is not None and self._enough[0] == len(self.ended):
            self._enough[1].callback(None)

    async def farm_stats(self) -> dict[str, object]:
        """The farm's sums, read after all that the proxy has written so far."""
        stats = await self._proxies[-1].farm.stats()
        return stats["farm"]

    async def stop(self) -> None:
        """Stop the proxies, and the game servers that they leave running."""
        for proxy in self._proxies:
            await proxy.stopService()
        if not (self.folder / "farm.db").exists():
            return
        with sqlite3.connect(self.folder / "farm.db") as database:
            rows = database.execute(
                "SELECT pid FROM game_servers WHERE pid IS NOT NULL AND state <> 'closed'"
            )
            for (pid,) in rows.fetchall():
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A folder with proxies, of which nothing is left afterwards."""
    rig = Rig(tmp_path)
    yield rig
    pytest_twisted.blockon(Deferred.fromCoroutine(rig.stop()))


class Program(ProcessProtocol):
    """A program that runs beside a test.

    :ivar said: fires with the first line of its output that begins with ``word``.
    """

    def __init__(self, word: str) -> None:
        self.said: Deferred[str] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._word = word
        self._output = ""

    def outReceived(self, data: bytes) -> None:
        self._output += data.decode()
        for line in self._output.splitlines(keepends=True):
            if line.startswith(self._word) and line.endswith("\n") and not self.said.called:
                self.said.callback(line.strip())

    def errReceived(self, data: bytes) -> None:
        self._output += data.decode()

    def processEnded(self, reason: Failure) -> None:
        if not self.said.called:
            self.said.errback(AssertionError(self._output))
        self.ended.callback(None)


@pytest.fixture
def run() -> Iterator[Callable[..., Program]]:
    """Runs programs, and ends them with the test."""
    programs: list[tuple[Program, Any]] = []

    def start(word: str, *command: str, **environment: str) -> Program:
        program = Program(word)
        transport = reactor.spawnProcess(
            program, command[0], command, env={**os.environ, **environment}
        )
        programs.append((program, transport))
        return program

    yield start
    for program, transport in programs:
        if not program.ended.called:
            transport.signalProcess("TERM")
            pytest_twisted.blockon(program.ended)


async def output_of(*command: str, **environment: str) -> str:
    """Run a program that must succeed, in HOME if that is given, which it may litter.

    :return: what it printed.
    """
    out, err, status = await getProcessOutputAndValue(
        command[0], command[1:], {**os.environ, **environment}, path=environment.get("HOME")
    )
    assert status == 0, (out + err).decode()
    return out.decode()


def echo_game(*command: str, **options: object) -> dict[str, object]:
    return {"name": "echo", "command": list(command), "capacity": 20, "max_servers": 1, **options}


async def node_client(port: int, **options: object) -> list[dict[str, Any]]:
    """What a client in Node sees, which fails by itself when anything is wrong."""
    node = shutil.which("node") or ""
    out = await output_of(node, str(NODE_CLIENT), "127.0.0.1", str(port), json.dumps(options))
    return [json.loads(line) for line in out.splitlines()]


@needs_node
@pytest_twisted.ensureDeferred
async def test_node(rig: Rig) -> None:
    """A client and a game server in Node, written from the documented protocol alone, play; the game server is started
    for the client, which waits for it, and the farm's numbers are right afterwards."""
    port = await rig.start(auth={"guests": True}, games=[echo_game("node", str(NODE_GAME_SERVER))])
    events = await node_client(port, name="ada", frames=200, early=9)
    told = [event["event"] for event in events if event["event"] != "frame"]
    assert told == ["status", "status", "welcome", "end"]
    assert [event["state"] for event in events[:2]] == ["starting", "connecting"]
    ends = [("kick", "kicked"), ("close", "left"), ("die", "server_lost")]
    for count, (last, reason) in enumerate(ends, start=2):
        await node_client(port, name="ada", frames=5, last=last)
        assert (await rig.until_ended(count))[-1].reason == reason
    await node_client(port, ticket="nonsense", expect_error="auth_failed")
    await node_client(port, auth={"protocol": 2}, expect_error="unsupported_version")
    await rig.until_ended(6)
    stats = await rig.farm_stats()
    assert (stats["connections_added"], stats["connections_removed"]) == (4, 4)
    assert (stats["connections"], stats["reserved"]) == (0, 0)


@needs_node
@needs_godot
@pytest_twisted.ensureDeferred
async def test_godot(rig: Rig, tmp_path: Path) -> None:
    """A GDScript client plays with a started game server in Python: 200 frames of up to 64 KB come back unchanged."""
    port = await rig.start(
        auth={"guests": True},
        games=[echo_game(sys.executable, "-m", "gameproxy.arena.echo")],
    )
    out = await output_of(
        shutil.which("godot3-server") or "",
        "--no-window",
        "-s",
        str(HERE / "godot" / "client.gd"),
        HOME=str(tmp_path),
        PROXY_HOST="127.0.0.1",
        PROXY_PORT=str(port),
    )
    assert "OK 200" in out, out
    (record,) = await rig.until_ended(1)
    assert record.reason == "left"
    assert (record.traffic.client_frames, record.traffic.server_frames) == (200, 200)


@needs_quarry
@pytest_twisted.ensureDeferred
async def test_quarry(rig: Rig, run: Callable[..., Program]) -> None:
    """Ten Minecraft clients play at once through the dialect plain with a game server that knows nothing of it."""
    server = run("listening", sys.executable, str(HERE / "quarry" / "server.py"), "127.0.0.1", "0")
    port = int((await server.said).split()[1])
    proxy_port = await rig.start(
        framing={"format": "varint"},
        dialect={"client": "plain"},
        servers=[
            {"id": "craft", "game": "craft", "host": "127.0.0.1", "port": port, "capacity": 20}
        ],
    )
    client = str(HERE / "quarry" / "client.py")
    out = await output_of(sys.executable, client, "127.0.0.1", str(proxy_port), "10")
    assert "OK 10" in out, out
    assert [record.server for record in await rig.until_ended(10)] == ["craft"] * 10

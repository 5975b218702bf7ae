"""Real input: programs that share no code with gameproxy play through it."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from languages import EVERY_LANGUAGE, EXAMPLES, HERE, command, needs_godot, needs_node
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from gameproxy.config import Config
from gameproxy.interfaces import SessionRecord
from gameproxy.service import GameProxy

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
                with suppress(ProcessLookupError):  # it may just have ended by itself
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


servers = pytest.mark.parametrize("server", EVERY_LANGUAGE)
clients = pytest.mark.parametrize("client", EVERY_LANGUAGE)


async def play(rig: Rig, port: int, client: str, **options: object) -> list[dict[str, Any]]:
    """One session of the example client, which fails by itself when an echo is wrong.

    :param client: its language.
    :param options: see tests/interop/node/echo_client.js.
    :return: its events.
    """
    out = await output_of(
        *command(HERE, client, "echo_client"),
        HOME=str(rig.folder),
        PROXY_HOST="127.0.0.1",
        PROXY_PORT=str(port),
        OPTIONS=json.dumps(options),
    )
    # Godot says more than its script does.
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


@servers
@clients
@pytest_twisted.ensureDeferred
async def test_examples(rig: Rig, client: str, server: str) -> None:
    """Each example client plays with each example game server, which is started for it: it waits, is let in, gets all
    its frames back, those it sent before WELCOME too, and leaves; the farm's numbers are right afterwards."""
    game_server = command(EXAMPLES, server, "game_server")
    port = await rig.start(auth={"guests": True}, games=[echo_game(*game_server)])
    events = await play(rig, port, client, name="zoë", frames=100, early=2)
    assert [event["event"] for event in events] == ["status", "status", "welcome", "ended"]
    assert [event["state"] for event in events[:2]] == ["starting", "connecting"]
    assert events[2]["player"] == "guest:zoë"
    assert (events[3]["code"], events[3]["echoed"]) == ("left", 100)
    (record,) = await rig.until_ended(1)
    assert record.reason == "left"
    assert (record.traffic.client_frames, record.traffic.server_frames) == (100, 100)
    stats = await rig.farm_stats()
    assert (stats["connections_added"], stats["connections_removed"]) == (1, 1)
    assert (stats["connections"], stats["reserved"]) == (0, 0)


@needs_node
@servers
@pytest_twisted.ensureDeferred
async def test_game_server_speaks(rig: Rig, server: str) -> None:
    """An example game server sends settings, kicks and closes, and its death is noticed."""
    port = await rig.start(
        auth={"guests": True}, games=[echo_game(*command(HERE, server, "words_server"))]
    )
    ends = [("kick", "kicked"), ("close", "left"), ("die", "server_lost")]
    for count, (last, reason) in enumerate(ends, start=1):
        events = await play(rig, port, "node", frames=3, last=last)
        assert {"event": "settings", "text": "of the game"} in events
        assert (events[-1]["code"], events[-1]["echoed"]) == (reason, 3)
        assert (await rig.until_ended(count))[-1].reason == reason


@clients
@pytest_twisted.ensureDeferred
async def test_client_is_refused(rig: Rig, client: str) -> None:
    """An example client is told by ERROR why it cannot play."""
    port = await rig.start(auth={"guests": True}, games=[echo_game("no such program")])
    for options, code in [
        ({"mechanism": "ticket", "ticket": "nonsense"}, "auth_failed"),
        ({"game": "chess"}, "unknown_game"),
    ]:
        (event,) = await play(rig, port, client, **options)
        assert (event["event"], event["code"]) == ("ended", code)


@needs_godot
@pytest_twisted.ensureDeferred
async def test_hello(rig: Rig) -> None:
    """The program that shows how Godot's client is used says hello, and hears it."""
    game = echo_game(sys.executable, "-m", "gameproxy.arena.echo")
    port = await rig.start(auth={"guests": True}, games=[game])
    out = await output_of(
        *command(EXAMPLES, "godot", "hello"),
        HOME=str(rig.folder),
        PROXY_HOST="127.0.0.1",
        PROXY_PORT=str(port),
    )
    for line in ["playing as guest:ada", "received hello", "ended: left"]:
        assert line in out


@needs_node
@pytest_twisted.ensureDeferred
async def test_typed_lines(rig: Rig) -> None:
    """The program of Node's client sends what is typed, and leaves when that ends."""
    game = echo_game(sys.executable, "-m", "gameproxy.arena.echo")
    port = await rig.start(auth={"guests": True}, games=[game])
    line = f"echo hello | node {EXAMPLES / 'node' / 'client.js'} 127.0.0.1 {port} ada"
    out = await output_of("/bin/sh", "-c", line)
    for line in ["player: 'guest:ada'", "frame { text: 'hello' }", "ended { code: 'left'"]:
        assert line in out


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

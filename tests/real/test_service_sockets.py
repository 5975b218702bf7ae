"""A proxy embedded in a program, and the proxy as a program: with a real reactor, sockets and database"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

from gameproxy.arena.echo import Echo
from gameproxy.client import Client, Guest
from gameproxy.config import Config
from gameproxy.gameserver import GameServerService, Place
from gameproxy.handshake import derive_server_key
from gameproxy.interfaces import SessionRecord
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.reasons import CloseReason
from gameproxy.service import GameProxy
from tests.visitor import Visitor

SECRET = bytes(range(32))
LONGEST_WAIT = 20.0


class Site:
    """A folder with a secret, a game server in this program, and what a proxy for it is configured with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        secret = folder / "farm.secret"
        secret.write_text(SECRET.hex())
        secret.chmod(0o600)
        place = Place("s1", derive_server_key(SECRET, "s1"), "127.0.0.1", 0, 50)
        self.service = GameServerService(Echo(), place, reactor)
        self.service.startService()
        self.game_server = self.service.server
        self.listed = {
            "id": "s1",
            "game": "echo",
            "host": "127.0.0.1",
            "port": self.game_server.port,
            "capacity": 50,
        }
        self.records: list[SessionRecord] = []

    def proxy(self, port: int = 0, **proxy: Any) -> GameProxy:
        """An embedded proxy, not started yet."""
        config = Config.model_validate(
            {
                "proxy": {"max_sessions": 100, **proxy},
                "auth": {"guests": True},
                "servers": [self.listed],
                "folder": self.folder,
            }
        )
        endpoint = TCP4ServerEndpoint(reactor, port, interface="127.0.0.1")
        return GameProxy(config, reactor, endpoints=[endpoint], on_session_end=self.records.append)

    def toml(self, listen: str = "tcp:0:interface=127.0.0.1", more: str = "") -> Path:
        """A configuration file for a proxy that is a program."""
        listed = "\n".join(f"{key} = {value!r}" for key, value in self.listed.items())
        file = self.folder / "gameproxy.toml"
        file.write_text(
            f'[proxy]\nlisten = ["{listen}"]\nmax_sessions = 100\n{more}\n'
            f"[auth]\nguests = true\n[[servers]]\n{listed}\n"
        )
        return file


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """A folder and a game server, taken down after the test."""
    site = Site(tmp_path)
    yield site
    pytest_twisted.blockon(site.service.stopService())


def visit(port: int, name: str) -> Visitor:
    """A client that connects."""
    return Visitor(reactor, "127.0.0.1", port, Guest(name))


def port_of(proxy: GameProxy) -> int:
    """Where an embedded proxy listens."""
    port: int = proxy.ports[0].getHost().port
    return port


@pytest_twisted.ensureDeferred
async def test_embedded(site: Site) -> None:
    """Ten clients at once play through an embedded proxy and leave; then nothing is left, and the numbers are right."""
    proxy = site.proxy()
    proxy.startService()
    await proxy.started
    visitors = [visit(port_of(proxy), f"bot{n}") for n in range(10)]
    for number, visitor in enumerate(visitors):
        welcome = await visitor.in_game
        assert welcome.player == f"guest:bot{number}"
        assert (welcome.server, welcome.game) == ("s1", "echo")
        body = b"\x10" + bytes([number]) * 50_000
        assert await visitor.exchange(body) == body
    assert len(site.game_server.players) == 10
    stats: Any = await proxy.farm.stats()
    assert (stats["farm"]["connections"], stats["farm"]["reserved"]) == (10, 0)
    for visitor in visitors:
        visitor.leave()
    assert [await visitor.over for visitor in visitors] == ["left"] * 10
    await proxy.stopService()
    assert [record.reason for record in site.records] == [CloseReason.LEFT] * 10
    assert site.game_server.players == {}
    assert proxy.metrics.traffic.client_bytes == 10 * (50_001 + 4)


@pytest_twisted.ensureDeferred
async def test_drain(site: Site) -> None:
    """A proxy that drains is refused by the system from the first moment; who plays may go on for the grace, and is
    then told."""
    proxy = site.proxy(drain_grace=0.3)
    proxy.startService()
    await proxy.started
    port = port_of(proxy)
    visitor = visit(port, "ann")
    await visitor.in_game
    stopped = proxy.stopService()
    assert await visitor.exchange(b"\x10still here") == b"\x10still here"
    with pytest.raises(OSError, match="refused"):
        await Client(TwistedLoop(reactor), "127.0.0.1", port, Guest("eve")).connect()
    assert await visitor.over == "draining"
    await stopped
    assert [record.reason for record in site.records] == [CloseReason.DRAINING]


@pytest_twisted.ensureDeferred
async def test_port_in_use(site: Site) -> None:
    """A port that is in use is an error at the start, and what was begun can be stopped."""
    proxy = site.proxy()
    proxy.startService()
    await proxy.started
    second = site.proxy(port=port_of(proxy))
    with pytest.raises(CannotListenError):
        second.startService()
    await second.stopService()
    await proxy.stopService()


class Program(ProcessProtocol):
    """A program that runs.

    :ivar ended: fires with how it ended: its status, or the negated number of a signal.
    """

    def __init__(self, arguments: list[str], folder: Path) -> None:
        self.output = ""
        self.ended: Deferred[int] = Deferred()
        self._heard: list[tuple[Callable[[str], bool], Deferred[None]]] = []
        environment = {key: value for key, value in os.environ.items() if "COV" not in key}
        program = Path(sys.executable).with_name(arguments[0])
        self.process = reactor.spawnProcess(
            self,
            str(program),
            [str(program), *arguments[1:]],
            env=environment,
            path=str(folder),
        )

    def heard(self, test: Callable[[str], bool]) -> Deferred[None]:
        """Fires when what the program has written passes a test."""
        heard: Deferred[None] = Deferred()
        self._heard.append((test, heard))
        self._look()
        return heard.addTimeout(LONGEST_WAIT, reactor)

    def outReceived(self, data: bytes) -> None:
        self.output += data.decode()
        self._look()

    errReceived = outReceived

    def processEnded(self, reason: Failure) -> None:
        value: Any = reason.value
        self.ended.callback(-value.signal if value.signal else value.exitCode)

    def _look(self) -> None:
        for test, heard in list(self._heard):
            if test(self.output) and not heard.called:
                heard.callback(None)

    async def port(self) -> int:
        """Where it listens, as it tells."""
        await self.heard(lambda output: "starting on" in output and "Starting reactor" in output)
        return int(self.output.split("starting on ")[1].split()[0])


@pytest_twisted.ensureDeferred
async def test_twist(site: Site) -> None:
    """The plugin serves; at SIGTERM it tells its clients that it drains, and ends with 0 or by that signal; of its
    farm it leaves no proxy and no slot behind."""
    file = site.toml(more="drain_grace = 0.2")
    program = Program(
        ["twist", "--log-format=text", "gameproxy", "--config", str(file)], site.folder
    )
    visitor = visit(await program.port(), "ann")
    await visitor.in_game
    assert await visitor.exchange(b"\x10hello") == b"\x10hello"
    program.process.signalProcess("TERM")
    assert await visitor.over == "draining"
    assert await program.ended in (0, -signal.SIGTERM), program.output
    assert "Traceback" not in program.output
    proxy = site.proxy()
    proxy.startService()
    await proxy.started
    stats: Any = await proxy.farm.stats()
    farm = stats["farm"]
    assert (farm["connections"], farm["connections_added"], farm["reserved"]) == (0, 1, 0)
    await proxy.stopService()


@pytest_twisted.ensureDeferred
async def test_twist_cannot_start(site: Site) -> None:
    """A configuration that cannot be used, a port that is in use and a database that cannot be opened end the
    program with status 1 and a plain text."""
    proxy = site.proxy()
    proxy.startService()
    await proxy.started
    taken = f"tcp:{port_of(proxy)}:interface=127.0.0.1"
    for listen, more, said in (
        ("tcp:0:interface=127.0.0.1", "bogus = 1", "proxy.bogus: unknown key"),
        (taken, "", "Couldn't listen on 127.0.0.1"),
        ("tcp:0:interface=127.0.0.1", 'database = "sqlite:///no/farm.db"', "Cannot start: "),
    ):
        file = site.toml(listen, more)
        arguments = ["twist", "--log-format=text", "gameproxy", "--config", str(file)]
        program = Program(arguments, site.folder)
        status = await program.ended.addTimeout(LONGEST_WAIT, reactor)
        assert status == 1, program.output
        assert said in program.output
        assert "Traceback" not in program.output
    await proxy.stopService()


@pytest_twisted.ensureDeferred
async def test_twist_help(tmp_path: Path) -> None:
    """``twist --help`` lists the plugin, and so does twistd; its own help tells its options."""
    for command, part in (
        (["twist", "--help"], "gameproxy"),
        (["twistd", "--help"], "gameproxy"),
        (["twist", "gameproxy", "--help"], "--config="),
    ):
        program = Program(command, tmp_path)
        assert await program.ended.addTimeout(LONGEST_WAIT, reactor) == 0
        assert part in program.output

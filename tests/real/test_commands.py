"""Operators' commands and two running proxies on one database, with real sockets and a real game server."""

from __future__ import annotations

import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import ClientCreator, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from gameproxy.client import Guest
from gameproxy.config import load
from gameproxy.control import control_folder, control_path
from gameproxy.service import GameProxy
from tests.commands import run, run_json
from tests.game_servers import end_game_servers
from tests.visitor import Visitor

LONGEST_WAIT = 20.0
CONFIG = """
[proxy]
drain_grace = 0.1
[auth]
guests = true
[[games]]
name = "echo"
command = ["{python}", "-m", "gameproxy.arena.echo"]
capacity = 8
max_servers = 1
stop_grace = 5.0
"""


class Farm:
    """Two proxies of one farm, and commands for it.

    :ivar proxies: both, started.
    """

    def __init__(self, folder: Path) -> None:
        self.file = folder / "gameproxy.toml"
        self.database = folder / "farm.db"
        self.proxies: list[GameProxy] = []

    async def start(self) -> None:
        """Start another proxy."""
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        proxy = GameProxy(load(self.file), reactor, endpoints=[endpoint])
        self.proxies.append(proxy)
        proxy.startService()
        await proxy.started

    async def does(self, *arguments: str) -> Any:
        """The document of a command, which must succeed. It runs in a thread: the proxies are in this process."""
        return await deferToThread(run_json, self.file, *arguments)

    async def says(self, *arguments: str) -> tuple[int, str, str]:
        """The exit status, output and errors of a command."""
        return await deferToThread(run, *arguments, "--config", str(self.file))

    async def join(self, proxy: int, name: str) -> Visitor:
        """A guest that plays."""
        visitor = self.visit(proxy, name)
        await visitor.in_game.addTimeout(LONGEST_WAIT, reactor)
        return visitor

    def visit(self, proxy: int, name: str) -> Visitor:
        """A guest that connects."""
        return Visitor(reactor, "127.0.0.1", self.port(proxy), Guest(name))

    def port(self, proxy: int) -> int:
        """Where a proxy listens."""
        port: int = self.proxies[proxy].ports[0].getHost().port
        return port

    async def until(self, what: Callable[[Any], bool], *arguments: str) -> Any:
        """The document of a command as soon as it is as it should be."""
        deadline = reactor.seconds() + LONGEST_WAIT
        while True:
            document = await self.does(*arguments)
            if what(document):
                return document
            assert reactor.seconds() < deadline, document
            await deferLater(reactor, 0.05)


@asynccontextmanager
async def two_proxies(folder: Path) -> AsyncIterator[Farm]:
    farm = Farm(folder)
    farm.file.write_text(CONFIG.format(python=sys.executable))
    try:
        await farm.start()
        await farm.start()
        yield farm
    finally:
        for proxy in farm.proxies:
            await proxy.stopService()
        end_game_servers(farm.database)


async def over(visitor: Visitor) -> str:
    return await visitor.over.addTimeout(LONGEST_WAIT, reactor)


@pytest_twisted.ensureDeferred
async def test_life_of_a_server(tmp_path: Path) -> None:
    """A game server is started, shown, drained and stopped, from whatever process, and the proxies heed it."""
    async with two_proxies(tmp_path) as farm:
        server = (await farm.does("farm", "start", "echo"))["server"]
        ready = await farm.until(lambda found: found["farm"]["servers"] == {"ready": 1}, "farm")
        assert [row["id"] for row in ready["servers"]] == [server]
        status, output, errors = await farm.says("farm", "start", "echo")
        assert (status, output) == (1, "") and "max_servers" in errors
        status, output, errors = await farm.says("farm", "start", "chess")
        assert (status, output) == (1, "") and "no running proxy starts" in errors

        ana = await farm.join(0, "ana")
        await farm.does("farm", "drain", server)
        bob = farm.visit(1, "bob")
        waiting = await farm.until(lambda found: found["queue"]["length"] == 1, "status")
        assert waiting["sessions"]["by_state"] == {"relaying": 1, "selecting": 1}

        await farm.does("farm", "stop", server)
        assert await over(ana) in ("server_lost", "draining", "left")
        await farm.until(lambda found: found["farm"]["servers"].get("closed") == 1, "farm")
        status, _, errors = await farm.says("farm", "stop", server)
        assert status == 1 and "has ended already" in errors
        # The queue needs another one now.
        assert (await bob.in_game.addTimeout(LONGEST_WAIT, reactor)).server != server


@pytest_twisted.ensureDeferred
async def test_status(tmp_path: Path) -> None:
    """What both proxies say of their sessions is added up, with what the database has, and shown to people too."""
    async with two_proxies(tmp_path) as farm:
        ana, _ = await farm.join(0, "ana"), await farm.join(1, "bob")
        silent = ClientCreator(reactor, Protocol)
        await silent.connectTCP("127.0.0.1", farm.port(1))
        found = await farm.until(
            lambda found: found["sessions"]["total"] == 3 and found["farm"]["connections"] == 2,
            "status",
        )
        assert found["sessions"] == {
            "total": 3,
            "by_state": {"expecting": 1, "relaying": 2},
            "by_relay": {"transport": 0, "epoll": 2, "sockmap": 0},
            "by_game": {"echo": 2},
        }
        assert found["queue"] == {"length": 0}
        assert found["farm"] == {
            "servers": {"ready": 1},
            "connections": 2,
            "connections_added": 2,
            "connections_removed": 0,
            "reserved": 0,
        }
        assert found["limits"]["max_sessions"] == 18000
        assert found["limits"]["unauthenticated"] == 1
        ids = sorted(proxy.farm.proxy for proxy in farm.proxies)
        assert [proxy["id"] for proxy in found["proxies"]] == ids
        assert all(proxy["answers"] for proxy in found["proxies"])
        status, output, errors = await farm.says("status")
        assert (status, errors) == (0, "")
        assert "Sessions: 3 (1 expecting, 2 relaying), 0 waiting" in output
        assert "Relayed by: 2 epoll" in output
        ana.leave()
        await over(ana)
        gone = await farm.until(lambda found: found["farm"]["connections"] == 1, "status")
        assert gone["farm"]["connections_removed"] == 1


@pytest_twisted.ensureDeferred
async def test_bans_and_kicks(tmp_path: Path) -> None:
    """Bans and kicks end live sessions at both proxies, and only those meant; a ban that is lifted bars nobody."""
    async with two_proxies(tmp_path) as farm:
        anas = [await farm.join(proxy, "ana") for proxy in (0, 1)]
        bobs = [await farm.join(proxy, "bob") for proxy in (0, 1)]
        await farm.does("ban", "guest:ana", "--for", "1h", "--reason", "loud")
        assert [await over(ana) for ana in anas] == ["banned", "banned"]
        for proxy in (0, 1):
            assert await over(farm.visit(proxy, "ana")) == "banned"
        await farm.does("unban", "guest:ana")
        ana = await farm.join(1, "ana")
        assert not any(bob.over.called for bob in bobs)
        assert (await farm.does("kick", "guest:bob"))["sessions"] == 2
        assert [await over(bob) for bob in bobs] == ["kicked", "kicked"]
        assert (await farm.does("kick", "address", "127.0.0.0/8"))["sessions"] == 1
        assert await over(ana) == "kicked"
        await farm.does("ban", "address", "127.0.0.0/8")
        assert await over(farm.visit(0, "eve")) == "banned"


@pytest_twisted.ensureDeferred
async def test_sockets(tmp_path: Path) -> None:
    """Each proxy has a socket for its owner alone, which goes with it; what a dead one left, the next removes."""
    async with two_proxies(tmp_path) as farm:
        folder = control_folder(farm.database)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        paths = [control_path(farm.database, proxy.farm.proxy) for proxy in farm.proxies]
        assert sorted(folder.iterdir()) == sorted(paths)
        for path in paths:
            assert stat.S_ISSOCK(path.stat().st_mode)
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        await farm.proxies.pop().stopService()
        assert list(folder.iterdir()) == [paths[0]]
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(folder / "proxy-dead.sock"))
        await farm.start()
        new = control_path(farm.database, farm.proxies[-1].farm.proxy)
        assert sorted(folder.iterdir()) == sorted([paths[0], new])
        # Somebody tidies up: the proxies end all the same.
        for path in folder.iterdir():
            path.unlink()
        found = await farm.does("status")
        assert [proxy["answers"] for proxy in found["proxies"]] == [False, False]


@pytest_twisted.ensureDeferred
async def test_without_socket(tmp_path: Path) -> None:
    """A proxy that is not to be asked has none, and works as well."""
    farm = Farm(tmp_path)
    farm.file.write_text(CONFIG.format(python=sys.executable))
    endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
    proxy = GameProxy(load(farm.file), reactor, endpoints=[endpoint], control=False)
    farm.proxies.append(proxy)
    proxy.startService()
    await proxy.started
    try:
        assert not control_folder(farm.database).exists()
        status, _, errors = await farm.says("farm", "start", "echo")
        assert status == 1 and "no proxy runs" in errors
        await farm.does("ban", "guest:ana")
        assert await over(farm.visit(0, "ana")) == "banned"
    finally:
        await proxy.stopService()
        end_game_servers(farm.database)

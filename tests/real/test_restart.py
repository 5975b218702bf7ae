"""A proxy that is restarted while whoever started it keeps its port open, as systemd does (sd_listen_fds(3))."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted

from tests.program import Program
from tests.real.crowd import Refused, Town, Visitor, together, until
from tests.real.streams import CLOSE

GAME = "capacity = 64\nmax_servers = 1"
LAUNCHER = 'LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=gameproxy.socket exec "$0" "$@"'
"""A shell becomes the program, whose pid it has: so systemd says whom a socket is for."""


class Activated(Town):
    """A farm whose port stays open while its proxy does not run.

    :param domain: ``INET``, or ``INET6`` for a port of both.
    :ivar told: what the proxy has told the one who started it.
    """

    def __init__(self, folder: Path, domain: str = "INET") -> None:
        super().__init__(folder, GAME, proxies=0)
        file = folder / "gameproxy.toml"
        listen = f'"systemd:domain={domain}:index=0"'
        file.write_text(file.read_text().replace('"tcp:0:interface=127.0.0.1"', listen))
        if domain == "INET6":
            family = socket.AF_INET6
            self.listener = socket.create_server(("::", 0), family=family, dualstack_ipv6=True)
        else:
            self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.ports.append(self.listener.getsockname()[1])
        self.told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.told.bind(str(folder / "notify"))
        self.told.setblocking(False)

    async def start(self) -> Program:
        """Start the proxy, and wait until it says that it is ready."""
        twist = (sys.executable, "-m", "twisted", "--log-format", "text", "gameproxy")
        proxy = Program(
            ["/bin/sh", "-c", LAUNCHER, *twist],
            self.folder,
            {"NOTIFY_SOCKET": str(self.folder / "notify")},
            descriptors={3: self.listener.fileno()},
        )
        self.proxies.append(proxy)
        await self.tells("READY=1")
        return proxy

    async def tells(self, fact: str) -> None:
        """Wait until the proxy says that, and see that it says nothing else."""
        heard: list[str] = []

        def hear() -> bool:
            try:
                heard.append(self.told.recv(4096).decode())
            except BlockingIOError:
                return False
            return True

        await until(hear)
        assert heard == [fact]


@pytest_twisted.ensureDeferred
async def test_restarts_that_drop_everyone_or_kill_the_game_servers(short_path: Path) -> None:
    """Restarts that drop everyone or kill the game servers: not here. Who connects while no proxy runs waits, and is
    let in by the next one, in the game that the last one has started; the kernel refuses nobody. What was said before
    the next one ran is not lost."""
    town = Activated(short_path)
    with closing(town.listener), closing(town.told):
        async with town:
            for number in range(3):
                proxy = await town.start()
                before = await town.join(f"before{number}")
                servers = town.query("SELECT id, pid FROM game_servers WHERE state = 'ready'")
                assert len(servers) == 1
                proxy.transport.signalProcess("TERM")
                assert await before.closed() == "draining"
                await town.tells("STOPPING=1")
                early = [await town.ask(f"early{number}.{n}") for n in range(5)]
                assert await proxy.over() in (0, -signal.SIGTERM)
                late = [await town.ask(f"late{number}.{n}") for n in range(5)]
                os.kill(servers[0][1], 0)
                next_proxy = await town.start()
                welcomes = await together(visitor.welcomed() for visitor in (*early, *late))
                assert {welcome["server"] for welcome in welcomes} == {servers[0][0]}
                await together(visitor.echo(b"\x10hello") for visitor in (*early, *late))
                assert (
                    town.query("SELECT id, pid FROM game_servers WHERE state = 'ready'") == servers
                )
                await next_proxy.end()
                await town.tells("STOPPING=1")
                for visitor in (*early, *late):
                    assert await visitor.closed() == "draining"


@pytest_twisted.ensureDeferred
async def test_a_crowd_meets_a_restart(short_path: Path) -> None:
    """Clients that connect one after the other all through a restart are all let in: by the one, by the other, or by
    the other after the one has told them that it drains."""
    town = Activated(short_path)
    with closing(town.listener), closing(town.told):
        async with town:
            proxy = await town.start()
            await town.join("first")
            visitors = [await town.ask(f"before{number}") for number in range(3)]
            proxy.transport.signalProcess("TERM")
            visitors += [await town.ask(f"meanwhile{number}") for number in range(7)]
            await town.tells("STOPPING=1")
            after = [await town.ask(f"after{number}") for number in range(7)]
            await proxy.over()
            await town.start()
            assert await together(plays(visitor) for visitor in after) == [True] * 7
            played = await together(plays(visitor) for visitor in visitors)
            again = [f"again{number}" for number, well in enumerate(played) if not well]
            await together(town.join(name) for name in again)


async def plays(visitor: Visitor) -> bool:
    """Whether a client comes in and can play, or is told by the proxy to which it came that this one drains."""
    try:
        await visitor.welcomed()
    except Refused as refused:
        assert refused.code == "draining"
        return False
    visitor.send(b"\x10hello")
    body = await visitor.body()
    if body == b"\x10hello":
        return True
    assert (body[0], json.loads(body[1:])["code"]) == (CLOSE, "draining")
    return False


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest_twisted.ensureDeferred
async def test_a_port_for_both(short_path: Path) -> None:
    """Whoever comes by IPv4 to a port of IPv6 has an address of IPv4, for bans and limits."""
    town = Activated(short_path, "INET6")
    with closing(town.listener), closing(town.told):
        async with town:
            await town.start()
            await (await town.join("ann")).echo(b"\x10hello")
            assert town.query("SELECT address FROM slots") == [("127.0.0.1",)]


@pytest_twisted.ensureDeferred
async def test_without_a_socket(short_path: Path) -> None:
    """Where systemd has passed on no socket, the proxy does not start, and says at which place of the configuration."""
    town = Activated(short_path)
    with closing(town.listener), closing(town.told):
        command = [sys.executable, "-m", "twisted", "--log-format", "text", "gameproxy"]
        proxy = Program(command, short_path)
        assert await proxy.over() == 1
        assert "proxy.listen[0]: " in proxy.output and "Traceback" not in proxy.output

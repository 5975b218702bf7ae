"""A proxy that is told to stop, and told again: as a program, with players."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet.threads import deferToThread

from tests.commands import run_json
from tests.program import Program
from tests.real.crowd import Town

GAME = "capacity = 8\nmax_servers = 1"


class Draining(Town):
    """A proxy whose sessions may go on for long.

    :param in_terminal: whether it runs in one.
    """

    def __init__(self, folder: Path, in_terminal: bool = False) -> None:
        super().__init__(folder, GAME, proxies=1)
        file = folder / "gameproxy.toml"
        file.write_text(file.read_text().replace("drain_grace = 0.05", "drain_grace = 9000.0"))
        self._in_terminal = in_terminal

    async def add_proxy(self) -> None:
        command = [sys.executable, "-m", "twisted", "--log-format", "text", "gameproxy"]
        proxy = Program(command, self.folder, in_terminal=self._in_terminal)
        self.proxies.append(proxy)
        match = await proxy.says(r"ClientFactory starting on (\d+)")
        self.ports.append(int(match[1]))
        await proxy.says("gameproxy serves")


async def hastened(town: Draining, first: str, again: str) -> None:
    """Players play on after the first signal, which status tells, and are told ``draining`` after the second."""
    (proxy,) = town.proxies
    visitors = [await town.join(name) for name in ("ann", "bob")]
    before = await status(town)
    assert (before["state"], before["drain"]) == ("serving", None)
    send(proxy, first)
    await proxy.says(r"2 sessions may go on for \d+")
    for visitor in visitors:
        await visitor.echo(b"\x10still here")
    during = await status(town)
    assert (during["state"], during["drain"]["sessions"]) == ("draining", 2)
    assert abs(during["drain"]["ends_at"] - during["drain"]["since"] - 9000) < 1
    send(proxy, again)
    assert [await visitor.closed() for visitor in visitors] == ["draining"] * 2
    ended = await proxy.over()
    assert ended in (0, -signal.SIGTERM, -signal.SIGINT), proxy.output
    assert "Unhandled" not in proxy.output and "ReactorNotRunning" not in proxy.output
    assert town.query("SELECT (SELECT count(*) FROM proxies), (SELECT count(*) FROM slots)") == [
        (0, 0)
    ]
    assert town.states() == {"ready": 1}


def send(proxy: Program, what: str) -> None:
    """Send a signal, or press what a terminal makes one of."""
    if what == "^C":
        proxy.press(b"\x03")
    else:
        proxy.transport.signalProcess(what)


async def status(town: Town) -> Any:
    """What the proxy says of itself."""
    document = await deferToThread(run_json, town.folder / "gameproxy.toml", "status")
    (told,) = document["proxies"]
    return told


@pytest_twisted.ensureDeferred
async def test_hastened(short_path: Path) -> None:
    """The second SIGTERM ends who is left, and the program within seconds, with its game server going on."""
    async with Draining(short_path) as town:
        await hastened(town, "TERM", "TERM")


@pytest_twisted.ensureDeferred
async def test_in_a_terminal(short_path: Path) -> None:
    """So does Ctrl-C, pressed twice in a terminal."""
    async with Draining(short_path, in_terminal=True) as town:
        await hastened(town, "^C", "^C")

"""Operators' commands beside proxies that are processes of their own, and beside none."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest_twisted
from twisted.internet import reactor
from twisted.internet.threads import deferToThread

from tests.commands import run, run_json
from tests.real.crowd import Town, together, until


async def does(town: Town, *arguments: str) -> Any:
    """The document of a command, which must succeed."""
    return await deferToThread(run_json, town.folder / "gameproxy.toml", *arguments)


async def says(town: Town, *arguments: str) -> tuple[int, str, str]:
    """The exit status, output and errors of a command."""
    return await deferToThread(run, *arguments, "--config", str(town.folder / "gameproxy.toml"))


async def fastest(times: int, what: Callable[[int], Awaitable[None]]) -> float:
    """Seconds that something takes if the machine has nothing else to do."""
    took = []
    for number in range(times):
        began = reactor.seconds()
        await what(number)
        took.append(reactor.seconds() - began)
    return min(took)


@pytest_twisted.ensureDeferred
async def test_two_proxies(tmp_path: Path) -> None:
    """What one command says or does concerns the sessions of both proxies: status and farm count them all; a ban and a
    kick end those that are meant within a second, wherever they are, and no others."""
    async with Town(tmp_path, "capacity = 16\nmax_servers = 1") as town:
        names = [f"{what}{number}" for number in range(4) for what in ("banned", "kicked", "stays")]
        visitors = dict(
            zip(
                names,
                await together(town.join(name, n % 2) for n, name in enumerate(names)),
                strict=True,
            )
        )
        await town.settled(12)
        status = await does(town, "status")
        assert status["sessions"]["total"] == 12
        assert [proxy["sessions"] for proxy in status["proxies"]] == [6, 6]
        farm = await does(town, "farm")
        sums = {"connections": 12, "connections_added": 12, "connections_removed": 0, "reserved": 0}
        assert farm["farm"] == {"servers": {"ready": 1}, **sums}

        async def ban(number: int) -> None:
            await does(town, "ban", f"guest:banned{number}")
            assert await visitors[f"banned{number}"].closed() == "banned"

        async def kick(number: int) -> None:
            assert (await does(town, "kick", f"guest:kicked{number}"))["sessions"] == 1
            assert await visitors[f"kicked{number}"].closed() == "kicked"

        assert await fastest(4, ban) < 1.0
        assert await fastest(4, kick) < 1.0
        await together(visitors[f"stays{number}"].echo(b"\x10on") for number in range(4))
        await town.settled(4)
        assert (await does(town, "farm"))["farm"]["connections_removed"] == 8


@pytest_twisted.ensureDeferred
async def test_no_proxy(tmp_path: Path) -> None:
    """Game servers that a killed proxy has left behind: they can be shown, drained and ended, one with a player's
    connection too; none can be started. A proxy that starts afterwards finds what was done."""
    game = "capacity = 1\nmin_ready = 2\nmax_servers = 2\nstop_grace = 5.0"
    async with Town(tmp_path, game, proxies=1) as town:
        visitor = await town.join("anna")
        await until(lambda: town.states() == {"ready": 2})
        servers = dict(town.query("SELECT id, pid FROM game_servers ORDER BY connections DESC"))
        busy, idle = servers
        town.ports.clear()
        await town.proxies.pop().end("KILL")
        assert await visitor.closed() == ""
        assert (await does(town, "farm"))["farm"]["servers"] == {"ready": 2}
        status, output, errors = await says(town, "farm", "start", "crowd")
        assert (status, output) == (1, "") and "no proxy runs" in errors
        await does(town, "farm", "drain", idle)
        for server in (idle, busy):
            document = await does(town, "farm", "stop", server)
            assert document == {"server": server, "state": "closed", "killed": False}
            assert not Path("/proc", str(servers[server])).exists()
            assert not (tmp_path / "farm.servers" / f"{server}.key").exists()
        assert [one["server"] for one in town.events("asked to stop")] == [idle, busy]
        assert town.states() == {"closed": 2}
        status, _, errors = await says(town, "farm", "stop", idle)
        assert status == 1 and "has ended already" in errors
        await town.add_proxy()
        await until(lambda: town.states() == {"closed": 2, "ready": 2})
        for (pid,) in town.query("SELECT pid FROM game_servers WHERE state = 'ready'"):
            os.kill(pid, 0)

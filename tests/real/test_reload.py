"""A running proxy whose configuration changes: by SIGHUP and by ``gameproxy reload``, with players all the while."""

from __future__ import annotations

import json
import socket
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import ClientCreator
from twisted.internet.threads import deferToThread

from tests.commands import run
from tests.real.crowd import Refused, Town, until
from tests.real.rig import Rig
from tests.real.streams import WELCOME, Stream, auth, pause

GAME = "capacity = 8\nmax_servers = 1"
DONE = r"configuration was (not )?reloaded"


def free_port() -> int:
    """A port that nobody listens at."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        number: int = listener.getsockname()[1]
        return number


class Changing(Town):
    """One proxy with a file that changes."""

    def __init__(self, folder: Path, **settings: str) -> None:
        super().__init__(folder, GAME, proxies=1, **settings)
        self.file = folder / "gameproxy.toml"

    def edit(self, *edits: tuple[str, str], more: str = "") -> None:
        """Change the file."""
        text = self.file.read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        self.file.write_text(text + more)

    async def hang_up(self) -> str:
        """Send SIGHUP, and wait until something came of it: what was logged."""
        before = len(self.proxies[0].output)
        self.proxies[0].transport.signalProcess("HUP")

        def logged() -> str:
            return self.proxies[0].output[before:]

        await until(lambda: "configuration was" in logged() and logged().endswith("\n"))
        return logged()

    async def reload(self, *more: str) -> tuple[int, str, str]:
        """The command: its status, output and errors."""
        return await deferToThread(run, "reload", "--config", str(self.file), *more)

    async def code(self, name: str) -> str:
        """How a guest is turned away."""
        with pytest.raises(Refused) as refused:
            await self.join(name)
        return refused.value.code


@pytest_twisted.ensureDeferred
async def test_sighup(short_path: Path) -> None:
    """What is in the file counts from then on, whoever plays goes on; what is wrong is logged, and nothing changes."""
    async with Changing(short_path) as town:
        ann = await town.join("ann")
        town.edit(("guests = true", "guests = false"))
        assert "auth.guests: true -> false" in await town.hang_up()
        assert await town.code("bob") == "auth_failed"
        town.edit(("guests = false", "guests = true\n            timeout = 0"))
        logged = await town.hang_up()
        assert "nothing has changed" in logged and "auth.timeout: " in logged
        assert await town.code("bob") == "auth_failed"
        town.edit(("timeout = 0", "timeout = 9"))
        await town.hang_up()
        bob = await town.join("bob")
        for visitor in (ann, bob):
            await visitor.echo(b"\x10still here")


@pytest_twisted.ensureDeferred
async def test_the_command(short_path: Path) -> None:
    """It prints what has changed, for people and for programs; or what cannot be, a line each, with status 1."""
    async with Changing(short_path) as town:
        ann = await town.join("ann")
        status, output, errors = await town.reload()
        assert (status, errors) == (0, "") and output.endswith("has changed.\n")
        town.edit(("max_servers = 1", "max_servers = 3"))
        status, output, errors = await town.reload()
        assert (status, errors) == (0, "")
        assert output.splitlines()[1:] == ["  games.crowd.max_servers: 1 -> 3"]
        town.edit(("max_servers = 3", "max_servers = 2"))
        status, output, errors = await town.reload("--json")
        (told,) = json.loads(output)["proxies"]
        change = {"place": "games.crowd.max_servers", "from": "3", "to": "2"}
        assert (status, errors, told["changes"], told["left_out"]) == (0, "", [change], 0)

        town.edit(("drain_grace", 'relay = "epoll"\nsecret_file = "o.secret"\ndrain_grace'))
        status, output, errors = await town.reload()
        assert (status, output) == (1, "")
        lines = errors.splitlines()
        assert [line.split(": ")[1] for line in lines] == ["proxy.secret_file", "proxy.relay"]
        town.edit(("guests = true", "guests = 1"))
        status, output, errors = await town.reload()
        assert (status, output) == (1, "") and "auth.guests: " in errors
        await ann.echo(b"\x10still here")


@pytest_twisted.ensureDeferred
async def test_another_file(short_path: Path) -> None:
    """A proxy that was started with another file, if on the same database, is left alone, and so is one of none."""
    async with Changing(short_path) as town:
        await town.join("ann")
        other = short_path / "other.toml"
        other.write_text(town.file.read_text().replace("guests = true", "guests = false"))
        status, output, errors = await deferToThread(run, "reload", "--config", str(other))
        assert (status, output) == (1, "") and f"no proxy runs with {other}" in errors
        link = short_path / "link.toml"
        link.symlink_to(town.file)
        status, _, errors = await deferToThread(run, "reload", "--config", str(link))
        assert status == 0, errors


@pytest_twisted.ensureDeferred
async def test_ports(short_path: Path) -> None:
    """A port that is new takes clients in, one that is gone refuses them, and those who came by it play on. Where one
    cannot be opened no other is."""
    first, second = free_port(), free_port()
    listen = 'listen = ["tcp:0:interface=127.0.0.1"{}]'
    async with Changing(short_path) as town:
        ann = await town.join("ann")
        taken = socket.create_server(("127.0.0.1", 0))
        with closing(taken):
            number = taken.getsockname()[1]
            extra = f', "tcp:{first}:interface=127.0.0.1", "tcp:{number}:interface=127.0.0.1"'
            town.edit((listen.format(""), listen.format(extra)))
            status, _, errors = await town.reload()
            assert status == 1 and "proxy.listen[2]: " in errors and "in use" in errors
            assert not listens(first)
        status, _, errors = await town.reload()
        assert status == 0, errors
        town.ports.append(first)
        await (await town.join("bob", 1)).echo(b"\x10hello")
        kept = f', "tcp:{first}:interface=127.0.0.1"'
        town.edit((listen.format(extra), f'listen = ["tcp:{second}:interface=127.0.0.1"]'))
        assert kept in extra
        status, _, errors = await town.reload()
        assert status == 0, errors
        assert [listens(port) for port in (town.ports[0], first, second)] == [False, False, True]
        await ann.echo(b"\x10still here")


def listens(port: int) -> bool:
    """Whether somebody listens there."""
    with closing(socket.socket()) as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest_twisted.ensureDeferred
async def test_games(short_path: Path) -> None:
    """Of a game that is gone no more servers start, and nobody comes in; who plays it plays on. One that is new is
    started at once."""
    async with Changing(short_path) as town:
        ann = await town.join("ann")
        town.edit(('name = "crowd"', 'name = "other"'))
        status, _, errors = await town.reload()
        assert status == 0, errors
        bob = await town.join("bob")
        await bob.echo(b"\x10hello")
        await ann.echo(b"\x10still here")
        games = town.query("SELECT game, state FROM game_servers ORDER BY game")
        assert games == [("crowd", "ready"), ("other", "ready")]
        client = await town.connect()
        client.send(auth(name="eve", game="crowd"))
        with pytest.raises(Refused) as refused:
            await client.welcomed()
        assert refused.value.code == "unknown_game"


@pytest_twisted.ensureDeferred
async def test_limits_of_those_who_are_there(short_path: Path) -> None:
    """A limit on the sessions of an address counts those that came when there was none, and what was counted is counted
    on while its mode stays."""
    limit = "[limits.sessions_per_address]\nmode = '{}'\nrate = {}\n"

    async def broken() -> dict[str, Any]:
        _, output, _ = await deferToThread(run, "status", "--json", "--config", str(town.file))
        limits = json.loads(output)["limits"]
        return {name: number for name, number in limits.items() if name.endswith("_sessions")}

    async with Changing(short_path) as town:
        before = town.file.read_text()
        for name in ("ann", "bob"):
            await town.join(name)
        for mode, most, happens in (
            ("enforce", 2, "limit_exceeded"),
            ("enforce", 1, "limit_exceeded"),
        ):
            town.file.write_text(before + limit.format(mode, most))
            status, _, errors = await town.reload()
            assert status == 0, errors
            assert await town.code("eve") == happens
        counted = await broken()
        assert counted["sessions_per_address_enforce_sessions"] == 2
        town.file.write_text(before + limit.format("dry_run", 2))
        await town.reload()
        await town.join("eve")
        assert (await broken())["sessions_per_address_dry_run_sessions"] == 1
        town.file.write_text(before)
        await town.reload()
        await town.join("fay")
        await town.settled(4)


@pytest_twisted.ensureDeferred
async def test_the_kernel(short_path: Path, plane: object) -> None:
    """With a limit on frames those who begin to relay keep to it, in the kernel too; those who relayed there before do
    not, and stay there. Without it again, those who come then may send what they like."""
    limit = '[limits.frames_per_second]\nmode = "enforce"\nrate = 1\nburst = 5\n'

    async def relayed(**wanted: int) -> None:
        """Until status says so."""
        while True:
            _, output, _ = await deferToThread(run, "status", "--json", "--config", str(town.file))
            by_relay = json.loads(output)["sessions"]["by_relay"]
            if by_relay == {"transport": 0, "epoll": 0, "sockmap": 0, **wanted}:
                return
            await pause(0.1)

    async with Changing(short_path, proxy="sockmap_after = 0.1") as town:
        before = town.file.read_text()
        ann = await town.join("ann")
        await relayed(sockmap=1)
        town.file.write_text(before + limit)
        assert (await town.reload())[0] == 0
        bob = await town.join("bob")
        await relayed(sockmap=2)
        for _ in range(6):
            bob.send(b"\x10spam")
        assert await bob.closed() == "limit_exceeded"
        town.file.write_text(before)
        assert (await town.reload())[0] == 0
        eve = await town.join("eve")
        await relayed(sockmap=2)
        for _ in range(10):
            await ann.echo(b"\x10still here")
            await eve.echo(b"\x10hello")


@pytest_twisted.ensureDeferred
async def test_nobody_comes_in_before_all_is_in_place(short_path: Path) -> None:
    """Who connects to a port that a reload has opened waits with the system until all is in place; when it is given up,
    he is turned away."""
    async with Rig(short_path) as rig:
        numbers = [free_port(), free_port()]
        listen = tuple(f"tcp:{number}:interface=127.0.0.1" for number in numbers)
        section = rig.proxy._config.proxy_protocol.model_copy(
            update={"listen": listen, "trusted": ("127.0.0.1",)}
        )
        config = rig.proxy._config.model_copy(update={"proxy_protocol": section})
        for used in (False, True):
            rig.proxy._doors.prepare(config)()
            opened = await rig.proxy._doors.open(config)
            early = await ClientCreator(reactor, Stream, "int32").connectTCP(
                "127.0.0.1", numbers[0]
            )
            early.send_raw(b"PROXY UNKNOWN\r\n")
            early.send(auth(game="echo"))
            canary = await rig.join()
            await canary.echo(b"\x10meanwhile")
            await rig.leave(canary)
            assert early.received == b""
            assert rig.proxy.headers.own == 0
            if used:
                opened.use()
                assert await early.message(WELCOME)
                await early.echo(b"\x10hello")
                await rig.leave(early)
            else:
                opened.give_up()
                assert await early.rest() == []
        (await rig.proxy._doors.open(rig.proxy._config)).use()

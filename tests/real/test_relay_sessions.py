"""Whole sessions in the kernel: what befalls a session must find it there, and end as on every plane."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor

from gameproxy.metrics import by_relay
from gameproxy.relay import choice
from gameproxy.relay.sockmap import Unavailable
from gameproxy.service import ConfigurationError
from tests.program import Program
from tests.real.rig import Rig
from tests.real.streams import KICK, GameServer, Stream, message, until
from tests.real.test_service_sockets import Site, visit
from tests.unit.test_auth_passwords import scrypt

NOBODY = 65534
IN_KERNEL = 'relay = "sockmap"'

pytestmark = pytest.mark.usefixtures("plane")


async def in_kernel(rig: Rig, sessions: int = 1) -> None:
    """Until so many sessions are in the kernel."""
    await until(lambda: [] if by_relay(rig.proxy.sessions)["sockmap"] == sessions else ["not yet"])


async def kicks(server: GameServer, stream: Stream) -> None:
    """A game server that answers a frame with much, KICK in the midst of it."""
    await server.admit(stream)
    await stream.body()
    for _ in range(100):
        stream.send(b"\x10" * 1000)
    stream.send(message(KICK, code="cheating", message="Out.", ban_for=60.0))
    for _ in range(100):
        stream.send(b"\x10" * 1000)
    server.got += await stream.until_close()


async def breaks(server: GameServer, stream: Stream) -> None:
    """A game server whose process is killed when a frame has come."""
    await server.admit(stream)
    stream.send(b"\x10hello")
    await stream.body()
    stream.reset()


@pytest_twisted.ensureDeferred
async def test_it_is_there(tmp_path: Path) -> None:
    """A session goes to the kernel, its frames pass there and are counted, and it leaves as it should."""
    async with Rig(tmp_path, proxy_settings=IN_KERNEL) as rig:
        client = await rig.join()
        await in_kernel(rig)
        for number in range(100):
            await client.echo(b"\x10hello%d" % number)
        assert by_relay(rig.proxy.sessions) == {"transport": 0, "epoll": 0, "sockmap": 1}
        await rig.leave(client)
        assert rig.records[0].traffic.client_frames == 100
        assert rig.records[0].traffic.server_frames == 100


@pytest_twisted.ensureDeferred
async def test_auto_after_a_time(tmp_path: Path) -> None:
    """By auto a session is on the epoll plane until it has lived for sockmap_after seconds."""
    async with Rig(tmp_path, proxy_settings="sockmap_after = 0.3") as rig:
        client = await rig.join()
        before = reactor.seconds()
        await client.echo(b"\x10hello")
        assert by_relay(rig.proxy.sessions) == {"transport": 0, "epoll": 1, "sockmap": 0}
        await in_kernel(rig)
        assert reactor.seconds() - before > 0.2
        await client.echo(b"\x10hello")
        assert by_relay(rig.proxy.sessions) == {"transport": 0, "epoll": 0, "sockmap": 1}
        await rig.leave(client)


@pytest_twisted.ensureDeferred
async def test_drain(tmp_path: Path) -> None:
    """A proxy that drains tells those in the kernel, too, and ends."""
    async with Rig(tmp_path, proxy_settings=IN_KERNEL) as rig:
        client = await rig.join()
        await in_kernel(rig)
        stopped = rig.proxy.stopService()
        await client.echo(b"\x10still here")
        assert await rig.closed(client, "draining") == []
        await rig.over("draining")
        await stopped
        assert by_relay(rig.proxy.sessions)["sockmap"] == 0


@pytest_twisted.ensureDeferred
async def test_game_server_killed(tmp_path: Path) -> None:
    """When its game server is killed, the client is told."""
    async with Rig(tmp_path, servers=[("weak", "chess", breaks)], proxy_settings=IN_KERNEL) as rig:
        client = await rig.join("chess")
        assert await client.body() == b"\x10hello"
        await in_kernel(rig)
        client.send(b"\x10die")
        assert await rig.closed(client, "server_lost") == []
        await rig.over("server_lost")


@pytest_twisted.ensureDeferred
async def test_kicked_in_a_burst(tmp_path: Path) -> None:
    """A player who is kicked gets what came before that, and nothing after it; and is banned."""
    async with Rig(tmp_path, servers=[("hard", "chess", kicks)], proxy_settings=IN_KERNEL) as rig:
        client = await rig.join("chess")
        await in_kernel(rig)
        client.send(b"\x10cheat")
        assert await rig.closed(client, "kicked") == [b"\x10" * 1000] * 100
        record = await rig.over("kicked")
        assert record.traffic.server_frames == 100
        await until(lambda: [] if rig.query("SELECT subject FROM bans") else ["no ban"])
        assert rig.query("SELECT subject FROM bans") == [("guest:mallory",)]


@pytest_twisted.ensureDeferred
async def test_banned(tmp_path: Path) -> None:
    """A ban ends a session in the kernel within a second or so."""
    async with Rig(tmp_path, proxy_settings=IN_KERNEL) as rig:
        client = await rig.join()
        await in_kernel(rig)
        now = time.time()
        rig.query(
            "INSERT INTO bans VALUES ('player', 'guest:mallory', '', 'test', ?, ?)", now, now + 60
        )
        assert await rig.closed(client, "banned") == []
        await rig.over("banned")


@pytest_twisted.ensureDeferred
async def test_replaced(tmp_path: Path) -> None:
    """A player's second session takes the place of the first, which is in the kernel."""
    (tmp_path / "users").write_text(f"ann:{scrypt(b'secret')}\n")
    (tmp_path / "users").chmod(0o600)
    settings = 'password_file = "users"\npassword_without_tls = true'
    async with Rig(tmp_path, auth=settings, proxy_settings=IN_KERNEL) as rig:
        who: Any = {"mechanism": "password", "name": None, "username": "ann", "password": "secret"}
        first = await rig.join(**who)
        await in_kernel(rig)
        second = await rig.join(**who)
        assert await rig.closed(first, "replaced") == []
        await rig.over("replaced")
        await second.echo(b"\x10hello")
        await in_kernel(rig)
        await rig.leave(second)


# Whether it is there


def refusing(pairs: int) -> Any:
    """In place of what loads the program."""
    raise Unavailable("It is Sunday.")


@pytest_twisted.ensureDeferred
async def test_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program cannot be loaded auto says so once, and relays; named, the proxy does not start."""
    monkeypatch.setattr(choice, "load", refusing)
    async with Rig(tmp_path, proxy_settings="sockmap_after = 0.01") as rig:
        for _ in range(3):
            client = await rig.join()
            await client.echo(b"\x10hello")
            assert by_relay(rig.proxy.sessions)["epoll"] == 1
            await rig.leave(client)
        told = [
            line["why"] for line in rig.lines if "why" in line and "kernel" in line["log_format"]
        ]
        assert told == ["It is Sunday."]
    with pytest.raises(ConfigurationError, match=r"^proxy.relay: It is Sunday\.$"):
        await Rig(tmp_path, proxy_settings=IN_KERNEL).__aenter__()


@pytest.fixture
def everybodys() -> Iterator[Path]:
    """A folder in which an unprivileged user may do what it likes."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    shutil.rmtree(folder)


def _told(file: Path) -> Any:
    """What ``gameproxy status`` says."""
    command = [sys.executable, "-m", "gameproxy", "status", "--json", "--config", str(file)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, timeout=20).stdout)


@pytest_twisted.ensureDeferred
async def test_privileges_dropped(everybodys: Path) -> None:
    """twistd loads the program before it drops its privileges for --uid; without any, the kernel relays sessions."""
    site = Site(everybodys)
    file = site.toml(more=f"drain_grace = 0.1\n{IN_KERNEL}")
    for path in (everybodys, *everybodys.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    twistd = str(Path(sys.executable).with_name("twistd"))
    arguments = [twistd, "-n", "--pidfile", "", "--uid", str(NOBODY), "--gid", str(NOBODY)]
    program = Program([*arguments, "gameproxy", "--config", str(file)], everybodys)
    try:
        port = int((await program.says(r"starting on (\d+)"))[1])
        await program.says(r"gameproxy serves")
        status = Path(f"/proc/{program.transport.pid}/status").read_text()
        assert re.search(rf"^Uid:(\s+{NOBODY}){{4}}$", status, re.M)
        assert re.search(r"^CapEff:\s+0+$", status, re.M)
        visitor = visit(port, "ann")
        await visitor.in_game
        for _ in range(2):
            assert await visitor.exchange(b"\x10hello") == b"\x10hello"
            await until(
                lambda: [] if _told(file)["sessions"]["by_relay"]["sockmap"] else ["not yet"]
            )
        (proxy,) = _told(file)["proxies"]
        assert proxy["relay"] == {"configured": "sockmap", "sockmap": "on"}
    finally:
        await program.end()
        await site.service.stopService()

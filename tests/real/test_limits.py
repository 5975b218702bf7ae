"""[limits] at a whole proxy, over real sockets and on each plane: who breaks one is ended, and nobody else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from gameproxy import wire
from gameproxy.admission import REFUSED_MAX
from tests.real.relay_peers import need_kernel
from tests.real.rig import Rig
from tests.real.streams import StubbornStream, auth, frame, pause, until

PLANES = ["transport", "epoll", "sockmap"]


def limit(name: str, rate: float, burst: float | None = None, mode: str = "enforce") -> str:
    """One of ``[limits.NAME]``."""
    section = f'[limits.{name}]\nmode = "{mode}"\nrate = {rate}\n'
    return section if burst is None else f"{section}burst = {burst}\n"


def banned(folder: Path) -> list[tuple[str, str]]:
    """Who is banned: kind and subject."""
    with closing(sqlite3.connect(folder / "farm.db")) as connection:
        return connection.execute("SELECT kind, subject FROM bans").fetchall()


def relay(plane: str) -> str:
    """More of ``[proxy]``."""
    if plane == "sockmap":
        need_kernel()
    return f'relay = "{plane}"'


def elsewhere(rig: Rig, plane: str) -> list[str]:
    """The planes of sessions that are not on this one."""
    planes = [session.relay.plane for session in rig.proxy.sessions if session.relay]
    return [one for one in planes if one != plane]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize(
    "limits",
    [
        pytest.param(limit("frames_per_second", 5, 20), id="frames"),
        pytest.param(limit("bytes_per_second", 500, 2000), id="bytes"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_too_much(tmp_path: Path, plane: str, limits: str) -> None:
    """A client that sends more than it may is told limit_exceeded, and its game server gets nothing of what was too
    much. Another, that keeps to the limit, notices nothing."""
    settings = relay(plane)
    async with Rig(tmp_path, proxy_settings=settings, more=limits) as rig, rig.canary():
        client = await rig.join()
        stream = rig.game_servers["good"].streams[-1]
        for number in range(15):
            await client.echo(b"\x10" + bytes([number]) * 95)
        await until(lambda: elsewhere(rig, plane))
        client.send_raw(frame(b"\x10" + b"\xee" * 95) * 25)
        assert await rig.closed(client, "limit_exceeded") == []
        record = await rig.over("limit_exceeded")
        assert f"{record.limit}" in limits
        assert record.traffic.client_frames == 15
        await until(lambda: [] if stream.lost else ["the game server's connection is there"])
        numbers = rig.proxy.sessions.limits()
        assert numbers[f"{record.limit}_enforce_sessions"] == 1


@pytest.mark.parametrize("plane", PLANES)
@pytest_twisted.ensureDeferred
async def test_dry_run(tmp_path: Path, plane: str) -> None:
    """In dry_run all passes, and the numbers say who would have been ended."""
    limits = limit("frames_per_second", 5, 20, "dry_run") + limit(
        "idle_seconds", 0.2, mode="dry_run"
    )
    async with Rig(tmp_path, proxy_settings=relay(plane), more=limits) as rig:
        client = await rig.join()
        await until(lambda: elsewhere(rig, plane))
        client.send_raw(frame(b"\x10one of many") * 50)
        for _ in range(50):
            assert await client.body() == b"\x10one of many"
        broken = "frames_per_second_dry_run_sessions"
        await until(lambda: [] if rig.proxy.sessions.limits()[broken] else ["none has broken it"])
        numbers = rig.proxy.sessions.limits()
        assert numbers[broken] == 1
        assert elsewhere(rig, plane) == []
        assert 0 < numbers["frames_per_second_dry_run_units"] <= 30
        counted = "idle_seconds_dry_run_sessions"
        await until(lambda: [] if rig.proxy.sessions.limits()[counted] else ["nobody is idle"])
        await client.echo(b"\x10still here")
        await rig.leave(client)


@pytest.mark.parametrize("plane", PLANES)
@pytest_twisted.ensureDeferred
async def test_idle(tmp_path: Path, plane: str) -> None:
    """A client that sends nothing for too long is told idle; one that sends something now and then is not."""
    limits = limit("idle_seconds", 2.0)
    async with Rig(tmp_path, proxy_settings=relay(plane), more=limits) as rig:
        silent, player = await rig.join(name="silent"), await rig.join(name="player")
        began = reactor.seconds()
        while not silent.lost:
            await player.echo(b"\x10here")
            await pause(0.1)
        assert reactor.seconds() - began >= 2.0
        assert await rig.closed(silent, "idle") == []
        await rig.over("idle")
        await player.echo(b"\x10here")
        await rig.leave(player)


@pytest_twisted.ensureDeferred
async def test_bans(tmp_path: Path) -> None:
    """Who breaks limits again and again is banned: of guests the address, which then cannot connect."""
    limits = "[limits]\nban_after = 2\nban_for = 30\n" + limit("frames_per_second", 1, 5)
    async with Rig(tmp_path, more=limits) as rig:
        for name in ("one", "another"):
            client = await rig.join(name=name)
            client.send_raw(frame(b"\x10") * 10)
            assert await rig.closed(client, "limit_exceeded") == []
            await rig.over("limit_exceeded")
        await until(lambda: [] if banned(tmp_path) else ["nobody is banned"])
        assert banned(tmp_path) == [("address", "127.0.0.1")]
        client = await rig.connect()
        await rig.refused(client, "banned")


@pytest_twisted.ensureDeferred
async def test_throttled(tmp_path: Path) -> None:
    """Who connects too often is told throttled and when to come again; then he is let in."""
    async with Rig(tmp_path, more=limit("connections_per_second", 0.5, 1)) as rig:
        await rig.leave(await rig.join())
        error = await rig.refused(await rig.connect(), "throttled")
        assert 0 < error["retry_after"] <= 2
        await pause(error["retry_after"])
        await rig.leave(await rig.join())


@pytest_twisted.ensureDeferred
async def test_throttled_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When very many come too often, no more are told so at once than may be: the others are closed without a word. All
    end with throttled, who is in plays on, and all sockets are closed soon."""
    limits = limit("connections_per_second", 0.001, 1)
    monkeypatch.setattr(wire, "LINGER", 60.0)  # so that all are there at once
    async with Rig(tmp_path, more=limits) as rig:
        player = await rig.join()
        crowd = [await rig.connect(StubbornStream) for _ in range(REFUSED_MAX + 100)]
        untold = [await client.rest() for client in crowd].count([])
        await player.echo(b"\x10still here")
        for client in crowd:
            if not client.lost:  # it would stay
                client.reset()
            await rig.over("throttled")
        assert untold == 100
        assert rig.proxy.sessions.limits()["connections_per_second_enforce_units"] == len(crowd)
        await rig.leave(player)


@pytest_twisted.ensureDeferred
async def test_sessions_per_address(tmp_path: Path) -> None:
    """An address has so many sessions and no more; when one is over, there is room again."""
    async with Rig(tmp_path, more=limit("sessions_per_address", 2)) as rig:
        first, second = await rig.join(), await rig.join()
        error = await rig.refused(await rig.connect(), "limit_exceeded")
        assert error["retry_after"] == 3.0
        await rig.leave(first)
        third = await rig.join()
        await rig.leave(second)
        await rig.leave(third)


@pytest_twisted.ensureDeferred
async def test_early_frames(tmp_path: Path) -> None:
    """What a client sent while it waited to be let in is not held against it: nobody read it when it was sent."""
    async with Rig(tmp_path, more=limit("frames_per_second", 1, 2)) as rig:
        client = await rig.connect()
        client.send_raw(frame(auth(game="echo")) + frame(b"\x10early") * 20)
        await client.body()
        for _ in range(20):
            assert await client.body() == b"\x10early"
        await rig.leave(client)

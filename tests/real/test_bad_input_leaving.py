"""Clients that do not go, do not read, do not stop sending; and clients that go, at every point of their way.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.real.rig import (
    Rig,
)
from tests.real.streams import (
    CLOSE,
    STATUS,
    GameServer,
    Stream,
    StubbornStream,
    auth,
    frame,
    message,
    pause,
    promptly,
    until,
)

EARLY_LIMIT = 65_536


# Clients that do not go, do not read, do not stop


@pytest_twisted.ensureDeferred
async def test_does_not_go(tmp_path: Path) -> None:
    """Who gets ERROR and does not close, or sends on without end, or does not even read, has its connection broken
    after a second; ERROR is there to be read until then."""
    async with Rig(tmp_path) as rig, rig.canary(lines=3):
        stays, sends_on, deaf = [await rig.connect(StubbornStream) for _ in range(3)]
        deaf.stop_reading()
        for client in (stays, sends_on, deaf):
            client.send_raw(frame(b"\x10"))
        while not sends_on.over:
            await sends_on.change()
        sends_on.send_raw(bytes(3 * EARLY_LIMIT))
        with promptly(0.8):
            await rig.refused(stays, "protocol_error")
            await rig.refused(sends_on, "protocol_error")
            await rig.over("protocol_error")
            for client in (stays, sends_on, deaf):
                await client.broken()


@pytest_twisted.ensureDeferred
async def test_sends_much_with_the_bad_frame(tmp_path: Path) -> None:
    """ERROR reaches also a client whose bad frame is followed by much that the proxy never looks at."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(frame(b"\x10") + bytes(EARLY_LIMIT // 2))
        await rig.refused(client, "protocol_error")


@pytest_twisted.ensureDeferred
async def test_never_reads(tmp_path: Path) -> None:
    """A client that takes nothing for stall_timeout while a game server sends ends with client_lost."""
    got: list[bytes] = []

    async def flood(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        for _ in range(200):
            stream.send(b"\x10" * 65_536)
        got.extend(await stream.until_close())

    async with Rig(tmp_path, servers=[("flood", "chess", flood)]) as rig, rig.canary():
        client = await rig.connect(StubbornStream)
        client.send(auth(game="chess"))
        client.stop_reading()
        with promptly(0.3):
            await rig.over("client_lost")
        assert [json.loads(body[1:])["code"] for body in got] == ["client_lost"]
        client.reset()


# Hanging up

ENDS = [Stream.close, Stream.reset, lambda stream: stream.transport.loseWriteConnection()]
END_NAMES = ["close", "reset", "half-close"]


@pytest.mark.parametrize("leave", ENDS, ids=END_NAMES)
@pytest.mark.parametrize("sent", [b"", b"\0\0", frame(auth())[:-1]], ids=["none", "header", "half"])
@pytest_twisted.ensureDeferred
async def test_leaves_before_auth(
    tmp_path: Path, sent: bytes, leave: Callable[[Stream], None]
) -> None:
    """A client that goes before its AUTH is complete is client_lost."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(sent)
        await pause(0.01)
        leave(client)
        with promptly():
            await rig.over("client_lost")


@pytest.mark.parametrize("leave", ENDS, ids=END_NAMES)
@pytest_twisted.ensureDeferred
async def test_leaves_with_auth(tmp_path: Path, leave: Callable[[Stream], None]) -> None:
    """A client that goes right after AUTH, wherever its session stands then, leaves nothing behind."""
    async with Rig(tmp_path) as rig, rig.canary(lines=10):
        for number in range(10):
            client = await rig.connect()
            client.send(auth(game="echo"))
            if number % 2:
                await pause(number * 0.001)
            leave(client)
        for _ in range(10):
            await rig.over("client_lost")


@pytest.mark.parametrize("leave", ENDS, ids=END_NAMES)
@pytest_twisted.ensureDeferred
async def test_leaves_the_queue(tmp_path: Path, leave: Callable[[Stream], None]) -> None:
    """A client that goes while it waits in the queue leaves it."""

    async def full(server: GameServer, stream: Stream) -> None:
        stream.send(message(0x0A, code="full", message="no room"))
        await stream.body()

    async with Rig(tmp_path, servers=[("full", "chess", full)]) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game="chess"))
        status = await client.message(STATUS)
        assert (status["state"], status["position"]) == ("queued", 1)
        leave(client)
        with promptly():
            await rig.over("client_lost")


@pytest.mark.parametrize("leave", ENDS, ids=END_NAMES)
@pytest.mark.parametrize("step", ["dialled", "challenged"])
@pytest_twisted.ensureDeferred
async def test_leaves_the_handshake(
    tmp_path: Path, step: str, leave: Callable[[Stream], None]
) -> None:
    """A client that goes during the handshake: the game server's connection is ended too."""
    reached: list[str] = []

    async def slow(server: GameServer, stream: Stream) -> None:
        if step == "challenged":
            await server.take_admit(stream)
        reached.append(step)
        assert await stream.rest() == []
        reached.append("ended")

    async with Rig(tmp_path, servers=[("slow", "chess", slow)]) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game="chess"))
        await until(lambda: [] if reached else ["not there yet"])
        leave(client)
        with promptly():
            await rig.over("client_lost")
        assert reached[-1] == "ended"


@pytest.mark.parametrize("leave", ENDS, ids=END_NAMES)
@pytest.mark.parametrize("half_a_frame", [False, True])
@pytest_twisted.ensureDeferred
async def test_leaves_while_relaying(
    tmp_path: Path, half_a_frame: bool, leave: Callable[[Stream], None]
) -> None:
    """A client that goes while it relays: the game server gets what had come, then CLOSE if the stream stands between
    two frames, then the end."""
    got: list[bytes] = []
    streams: list[Stream] = []

    async def game(server: GameServer, stream: Stream) -> None:
        streams.append(stream)
        await server.admit(stream)
        got.append(await stream.body())
        stream.send(b"\x10ok")
        got.extend(await stream.until_close())

    async with Rig(tmp_path, servers=[("game", "chess", game)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.send(b"\x10one")
        assert await client.body() == b"\x10ok"
        if half_a_frame:
            client.send_raw(frame(b"\x10" + bytes(99))[:-1])
            await until(lambda: [] if len(streams[0].received) == 103 else ["not passed on"])
        leave(client)
        with promptly():
            await rig.over("client_lost")
        if half_a_frame:
            assert got == [b"\x10one"]
            assert len(streams[0].received) == 103
        else:
            assert [body[0] for body in got] == [0x10, CLOSE]
            assert json.loads(got[1][1:])["code"] == "client_lost"

"""Bad clients that have sent their AUTH: what comes early, and what comes while relaying.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import pytest_twisted

from tests.real.rig import (
    Rig,
)
from tests.real.streams import (
    CLOSE,
    SETTINGS,
    WELCOME,
    GameServer,
    Stream,
    auth,
    frame,
    message,
    pause,
    promptly,
    until,
)

NATIVE_LIMIT = 2_097_151
EARLY_LIMIT = 65_536


# Early bytes


@pytest.mark.parametrize("chunks", [1, 7])
@pytest.mark.parametrize("with_auth", [True, False])
@pytest_twisted.ensureDeferred
async def test_all_early_bytes(tmp_path: Path, chunks: int, with_auth: bool) -> None:
    """64 KiB that come before WELCOME are delivered in order after ADMITTED; frames may be larger than 4096 bytes."""
    early = [b"\x10" + bytes([number]) * 16_379 for number in range(4)]
    sent = b"".join(map(frame, early))
    assert len(sent) == EARLY_LIMIT
    got: list[bytes] = []

    async def late(server: GameServer, stream: Stream) -> None:
        admit = await server.take_admit(stream)
        await pause(0.1)
        assert not stream.received, "something came before ADMITTED"
        stream.send(server.admitted(admit))
        got.extend([await stream.body() for _ in early])
        stream.send(b"\x10ok")
        assert len(await stream.until_close()) == 1

    async with Rig(tmp_path, servers=[("late", "chess", late)]) as rig, rig.canary():
        client = await rig.connect()
        hello = frame(auth(game="chess"))
        if with_auth:
            hello, sent = hello + sent, b""
        client.send_raw(hello)
        size = len(sent) // chunks + 1
        for at in range(0, len(sent), size):
            client.send_raw(sent[at : at + size])
            await pause(0)
        await client.message(WELCOME)
        assert await client.body() == b"\x10ok"
        assert got == early
        client.close()
        await rig.over("client_lost")


@pytest.mark.parametrize("with_auth", [True, False])
@pytest_twisted.ensureDeferred
async def test_one_early_byte_too_many(tmp_path: Path, with_auth: bool) -> None:
    """64 KiB and one byte before WELCOME are a protocol_error; the game server gets nothing of it."""

    async def slow(server: GameServer, stream: Stream) -> None:
        await server.take_admit(stream)
        await stream.body()
        raise AssertionError("something came")

    early = frame(b"\x10" + bytes(EARLY_LIMIT - 4))
    assert len(early) == EARLY_LIMIT + 1
    async with Rig(tmp_path, servers=[("slow", "chess", slow)]) as rig, rig.canary():
        client = await rig.connect()
        if with_auth:
            client.send_raw(frame(auth(game="chess")) + early)
        else:
            client.send(auth(game="chess"))
            client.send_raw(early[:-1])
            await pause(0.05)
            assert not client.over
            client.send_raw(early[-1:])
        await rig.refused(client, "protocol_error")


@pytest.mark.parametrize("type_", range(16))
@pytest_twisted.ensureDeferred
async def test_reserved_type_early(tmp_path: Path, type_: int) -> None:
    """Between AUTH and WELCOME a client may send nothing of the proxy's own: not even CLOSE."""

    async def slow(server: GameServer, stream: Stream) -> None:
        await stream.body()

    async with Rig(tmp_path, servers=[("slow", "chess", slow)]) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(
            frame(auth(game="chess"))
            + frame(b"\x10fine")
            + frame(b"")
            + frame(message(type_, code="left", message="x"))
        )
        await rig.refused(client, "protocol_error")


@pytest_twisted.ensureDeferred
async def test_oversize_early(tmp_path: Path) -> None:
    """An early frame over max_frame is a protocol_error as soon as its length is there."""

    async def slow(server: GameServer, stream: Stream) -> None:
        await stream.body()

    async with Rig(tmp_path, servers=[("slow", "chess", slow)]) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(frame(auth(game="chess")) + struct.pack(">I", NATIVE_LIMIT + 1))
        await rig.refused(client, "protocol_error")


# While relaying


@pytest.mark.parametrize(
    "bad",
    [
        *[frame(message(type_, code="left", message="x")) for type_ in range(16) if type_ != CLOSE],
        struct.pack(">I", NATIVE_LIMIT + 1) + b"\x10 and more",
        b"\xff\xff\xff\xff",
        frame(bytes([CLOSE])),
        frame(bytes([CLOSE]) + b"[]"),
        frame(bytes([CLOSE]) + b'{"code":1,"message":"x"}'),
        frame(bytes([CLOSE]) + b'{"code":"left","code":"left","message":"x"}'),
        frame(bytes([CLOSE]) + b'{"code":"left","message":"\xff"}'),
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_frame_while_relaying(tmp_path: Path, bad: bytes) -> None:
    """A bad frame of a client: both sides get CLOSE protocol_error; nothing of it and nothing after it is passed on."""
    got: list[bytes] = []

    async def game(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        got.extend(await stream.until_close())

    async with Rig(tmp_path, servers=[("game", "chess", game)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.send_raw(frame(b"\x10before") + bad + frame(b"\x10after"))
        with promptly():
            assert await rig.closed(client, "protocol_error") == []
            await rig.over("protocol_error")
        assert got[0] == b"\x10before"
        assert [body[0] for body in got[1:]] == [CLOSE]
        assert json.loads(got[1][1:])["code"] == "protocol_error"


@pytest_twisted.ensureDeferred
async def test_bad_frame_in_pieces(tmp_path: Path) -> None:
    """A bad frame that comes byte by byte is as bad, and nothing of it is passed on either."""
    got: list[bytes] = []

    async def game(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        got.extend(await stream.until_close())

    async with Rig(tmp_path, servers=[("game", "chess", game)]) as rig, rig.canary():
        client = await rig.join("chess")
        for byte in frame(b"\x10one") + frame(auth())[:5]:
            client.send_raw(bytes([byte]))
            await pause(0)
        assert await rig.closed(client, "protocol_error") == []
        await rig.over("protocol_error")
        assert [body[0] for body in got] == [0x10, CLOSE]


@pytest_twisted.ensureDeferred
async def test_bad_frame_while_half_of_one_is_out(tmp_path: Path) -> None:
    """Who has got half a frame is not told CLOSE, which would stand in the middle of it, but gets the end."""
    half = frame(b"\x10" + bytes(99))[:-1]
    streams: list[Stream] = []

    async def game(server: GameServer, stream: Stream) -> None:
        streams.append(stream)
        await server.admit(stream)
        stream.send_raw(half)
        server.got = await stream.until_close()

    async with Rig(tmp_path, servers=[("game", "chess", game)]) as rig, rig.canary(lines=2):
        client = await rig.join("chess")
        await until(lambda: [] if client.received == half else ["not passed on"])
        client.send(auth())
        assert await client.rest() == []
        assert client.received == half
        await rig.over("protocol_error")
        assert [body[0] for body in rig.game_servers["game"].got] == [CLOSE]

        client = await rig.join("chess")
        client.send_raw(half)
        await until(lambda: [] if streams[1].received == half else ["not passed on"])
        streams[1].send_raw(b"\0")
        streams[1].send_raw(b"\xff" * 9)
        assert [body[0] for body in await client.rest()] == [0x10, CLOSE]
        await rig.over("protocol_error")
        assert rig.game_servers["game"].got == []
        assert streams[1].received == half


@pytest.mark.parametrize("code", ["left", "kicked", "internal", "", "\x1b[31m", "x" * 2000])
@pytest_twisted.ensureDeferred
async def test_close_is_left(tmp_path: Path, code: str) -> None:
    """A client's CLOSE is passed on as ``left``, whatever code it says; what came after it is not passed on."""
    got: list[bytes] = []

    async def game(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        got.extend(await stream.until_close())

    async with Rig(tmp_path, servers=[("game", "chess", game)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.send_raw(frame(message(CLOSE, code=code, message="x")) + frame(b"\x10after"))
        assert await client.rest() == []
        await rig.over("left")
        assert [body[0] for body in got] == [CLOSE]
        assert json.loads(got[0][1:])["code"] == "left"


@pytest_twisted.ensureDeferred
async def test_largest_frame(tmp_path: Path) -> None:
    """A frame of max_frame bytes passes, both ways, and an empty one."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.join()
        await client.echo(b"\x10" * NATIVE_LIMIT)
        await client.echo(b"")
        client.close()
        await rig.over("client_lost")


# Crowds


@pytest_twisted.ensureDeferred
async def test_too_many(tmp_path: Path) -> None:
    """Connections that say nothing fill max_unauthenticated at most: those after them get proxy_full at once, who
    relays goes on, and when they are gone there is room again."""
    limits = "max_unauthenticated = 5"
    async with Rig(tmp_path, proxy_settings=limits) as rig, rig.canary(lines=10):
        silent = [await rig.connect() for _ in range(5)]
        for _ in range(5):
            client = await rig.connect()
            assert (await rig.refused(client, "proxy_full"))["retry_after"] > 0
        for client in silent:
            client.close()
        for _ in silent:
            await rig.over("client_lost")
        client = await rig.connect()
        client.send_raw(frame(b"\x10"))
        await client.rest()
        await rig.over("protocol_error")
        rig.lines.pop()


@pytest_twisted.ensureDeferred
async def test_settings_of_a_client(tmp_path: Path) -> None:
    """SETTINGS are the game server's: from a client they are a protocol_error also in the middle of play."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.join()
        await client.echo(b"\x10fine")
        client.send(bytes([SETTINGS]) + b"mine")
        assert await rig.closed(client, "protocol_error") == []
        await rig.over("protocol_error")


@pytest_twisted.ensureDeferred
async def test_all_at_once(tmp_path: Path) -> None:
    """A crowd that does everything wrong at the same time: each session ends once, with its own code."""
    misdeeds: list[tuple[str, Callable[[Stream], None]]] = [
        ("protocol_error", lambda client: client.send_raw(b"\xff" * 100)),
        ("protocol_error", lambda client: client.send(b"\x01[]")),
        ("protocol_error", lambda client: client.send(b"\x10game")),
        ("unsupported_version", lambda client: client.send(auth(protocol=9))),
        ("auth_failed", lambda client: client.send(auth(mechanism="magic"))),
        ("auth_failed", lambda client: client.send(auth(name="\x1b[2J"))),
        ("unknown_game", lambda client: client.send(auth(game="chess"))),
        ("auth_timeout", lambda client: client.send_raw(b"\0\0\x10")),
        ("client_lost", Stream.close),
        ("client_lost", Stream.reset),
    ]
    async with Rig(tmp_path, timeout=1.0) as rig, rig.canary(lines=100) as canary:
        expected = []
        for _ in range(10):
            for code, misdeed in misdeeds:
                misdeed(await rig.connect())
                expected.append(code)
        for number in range(100):
            await canary.echo(b"\x10%d" % number)
        ends = [(await rig.end()).reason.value for _ in expected]
        assert sorted(ends) == sorted(expected)

"""Bad game servers that refuse, are not there, or have let a session in: it gets its code, and is closed in time.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

import json
import socket
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
    KICK,
    REFUSED,
    SETTINGS,
    STATUS,
    WELCOME,
    GameServer,
    Script,
    Stream,
    StubbornStream,
    auth,
    echo,
    frame,
    message,
    promptly,
    until,
)
from tests.real.test_bad_input_handshake import answers, closes_at_once, says

NATIVE_LIMIT = 2_097_151


# REFUSED


@pytest.mark.parametrize("after_admit", [False, True])
@pytest.mark.parametrize("code", ["no", "", "FULL", "banned", "\x1b[31m"])
@pytest_twisted.ensureDeferred
async def test_refused(tmp_path: Path, code: str, after_admit: bool) -> None:
    """REFUSED with a code of its own ends the session with refused; another game server is not tried."""

    async def refuses(server: GameServer, stream: Stream) -> None:
        if after_admit:
            await server.take_admit(stream)
        stream.send(message(REFUSED, code=code, message="Not on a Sunday."))
        await stream.rest()

    servers: list[tuple[str, str, Script | int]] = [
        ("a", "chess", refuses),
        ("b", "chess", refuses),
    ]
    async with Rig(tmp_path, servers=servers) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game="chess"))
        await rig.refused(client, "refused")
        assert sum(len(rig.game_servers[id].streams) for id in "ab") == 1


@pytest_twisted.ensureDeferred
async def test_refused_at_length(tmp_path: Path) -> None:
    """What is said with REFUSED, however long, leaves ERROR a frame of 4096 bytes at most."""
    script = says(frame(message(REFUSED, code="no", message="\x01\u202e\U0001f600" * 160)))
    async with Rig(tmp_path, servers=[("bad", "chess", script)]) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game="chess"))
        await rig.refused(client, "refused")


@pytest.mark.parametrize("code", ["full", "draining"])
@pytest_twisted.ensureDeferred
async def test_next_after_full(tmp_path: Path, code: str) -> None:
    """``full`` and ``draining`` make the proxy try the next game server, which lets the client in."""
    servers: list[tuple[str, str, Script | int]] = [
        ("a", "chess", says(frame(message(REFUSED, code=code, message="x")))),
        ("b", "chess", echo),
    ]
    async with Rig(tmp_path, servers=servers) as rig, rig.canary():
        client = await rig.join("chess")
        await client.echo(b"\x10in")
        assert len(rig.game_servers["a"].streams) == len(rig.game_servers["b"].streams) == 1
        client.close()
        await rig.over("client_lost")


@pytest_twisted.ensureDeferred
async def test_all_full(tmp_path: Path) -> None:
    """When every game server answers ``full`` the client is told that it waits, and then queue_timeout."""
    script = says(frame(message(REFUSED, code="full", message="x")))
    servers: list[tuple[str, str, Script | int]] = [("bad", "chess", script)]
    async with Rig(tmp_path, servers=servers, queue_timeout=0.6) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game="chess"))
        status = await client.message(STATUS)
        assert (status["state"], status["position"]) == ("queued", 1)
        with promptly(0.4):
            await rig.refused(client, "queue_timeout")
        assert len(rig.game_servers["bad"].streams) == 1


# Dials


def unused_port() -> int:
    """A port of the loopback at which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@pytest_twisted.ensureDeferred
async def test_dial_refused(tmp_path: Path) -> None:
    """A game server at whose port nobody listens is server_unreachable, now and while it rests."""
    async with Rig(tmp_path, servers=[("bad", "chess", unused_port())]) as rig, rig.canary(lines=3):
        for _ in range(3):
            client = await rig.connect()
            client.send(auth(game="chess"))
            await rig.refused(client, "server_unreachable")


@pytest_twisted.ensureDeferred
async def test_dial_unanswered(tmp_path: Path) -> None:
    """A dial that nobody answers is server_unreachable after connect_timeout."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
            fillers.append(filler)
        try:
            async with (
                Rig(tmp_path, servers=[("bad", "chess", port)], timeout=1.0) as rig,
                rig.canary(),
            ):
                client = await rig.connect()
                client.send(auth(game="chess"))
                with promptly(0.9):
                    await rig.refused(client, "server_unreachable")
        finally:
            for filler in fillers:
                filler.close()


@pytest.mark.parametrize(
    "first",
    [0, says(b"\xff" * 9), closes_at_once, answers(lambda server, admit: b"\x10")],
    ids=["dial", "garbage", "close", "no ADMITTED"],
)
@pytest_twisted.ensureDeferred
async def test_next_after_failure(tmp_path: Path, first: Script | int) -> None:
    """When one game server fails the next one is tried, with another handshake; early bytes are not lost."""
    servers: list[tuple[str, str, Script | int]] = [
        ("a", "chess", first or unused_port()),
        ("b", "chess", echo),
    ]
    async with Rig(tmp_path, servers=servers) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(frame(auth(game="chess")) + frame(b"\x10early"))
        assert (await client.message(WELCOME))["server"] == "b"
        assert await client.body() == b"\x10early"
        client.close()
        await rig.over("client_lost")


@pytest_twisted.ensureDeferred
async def test_attempts(tmp_path: Path) -> None:
    """No more than ``attempts`` game servers are tried, each once."""
    servers: list[tuple[str, str, Script | int]] = [
        (id, "chess", says(frame(b""))) for id in "abcde"
    ]
    async with Rig(tmp_path, servers=servers) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game="chess"))
        await rig.refused(client, "handshake_failed")
        assert sorted(len(rig.game_servers[id].streams) for id in "abcde") == [0, 0, 1, 1, 1]


# While relaying


def relays(*sent: bytes) -> Script:
    """A game server that lets everybody in, sends this, and closes when it gets CLOSE."""

    async def script(server: GameServer, stream: Stream) -> None:
        admit = await server.take_admit(stream)
        stream.send_raw(frame(server.admitted(admit)) + b"".join(sent))
        server.got = await stream.until_close()

    return script


BAD_WHILE_RELAYING = [
    *[
        frame(message(type_, code="left", message="x"))
        for type_ in range(16)
        if type_ not in (SETTINGS, CLOSE, KICK)
    ],
    struct.pack(">I", NATIVE_LIMIT + 1) + b"\x10",
    b"\xff\xff\xff\xff",
    frame(bytes([CLOSE])),
    frame(bytes([CLOSE]) + b"[]"),
    frame(message(CLOSE, code=1, message="x")),
    frame(message(CLOSE, code="left")),
    frame(bytes([KICK])),
    frame(message(KICK, code="kicked")),
    frame(message(KICK, code="kicked", message="x", ban_for="for ever")),
    frame(message(KICK, code="kicked", message="x", ban_for=True)),
    frame(message(KICK, code="kicked", message="x", ban_for=-5)),
    frame(message(KICK, code="kicked", message="x", ban_for=float("nan"))),
    frame(message(KICK, code="kicked", message="x", ban_for=float("inf"))),
    frame(bytes([KICK]) + b'{"code":"kicked","code":"kicked","message":"x"}'),
]


@pytest.mark.parametrize("bad", BAD_WHILE_RELAYING)
@pytest_twisted.ensureDeferred
async def test_bad_frame_while_relaying(tmp_path: Path, bad: bytes) -> None:
    """A bad frame of a game server: both sides get CLOSE protocol_error; nothing of it or after it is passed on, and
    nobody is banned."""
    script = relays(frame(b"\x10before"), bad, frame(b"\x10after"))
    async with Rig(tmp_path, servers=[("bad", "chess", script)]) as rig, rig.canary():
        client = await rig.join("chess")
        with promptly():
            assert await rig.closed(client, "protocol_error") == [b"\x10before"]
            await rig.over("protocol_error")
        (told,) = rig.game_servers["bad"].got
        assert told[0] == CLOSE
        assert json.loads(told[1:])["code"] == "protocol_error"
        assert rig.query("SELECT * FROM bans") == []


@pytest_twisted.ensureDeferred
async def test_settings_at_any_time(tmp_path: Path) -> None:
    """SETTINGS pass whenever a game server sends them, whatever is in them."""
    settings = [bytes([SETTINGS]), b"\x03\xff\xfe", b"\x03" + b"x" * 70_000]
    script = relays(
        frame(settings[0]), frame(b"\x10a"), frame(settings[1]), frame(b""), frame(settings[2])
    )
    async with Rig(tmp_path, servers=[("new", "chess", script)]) as rig, rig.canary():
        client = await rig.join("chess")
        got = [await client.body() for _ in range(5)]
        assert got == [settings[0], b"\x10a", settings[1], b"", settings[2]]
        client.close()
        await rig.over("client_lost")


@pytest_twisted.ensureDeferred
async def test_kick(tmp_path: Path) -> None:
    """KICK ends the session with kicked and bans its player; what the game server sent after it is not passed on."""
    kick = frame(message(KICK, code="cheat", message="Bye.\x1b[2J", ban_for=60))
    script = relays(frame(b"\x10before"), kick, frame(b"\x10after"))
    async with Rig(tmp_path, servers=[("new", "chess", script)]) as rig, rig.canary(lines=2):
        client = await rig.join("chess")
        assert await rig.closed(client, "kicked") == [b"\x10before"]
        await rig.over("kicked")
        await until(
            lambda: [] if rig.query("SELECT kind, subject FROM bans") else ["nobody is banned"]
        )
        assert rig.query("SELECT kind, subject FROM bans") == [("player", "guest:mallory")]
        client = await rig.connect()
        client.send(auth(game="chess"))
        await rig.refused(client, "banned")


@pytest.mark.parametrize(
    ("code", "stays"),
    [("left", False), ("left", True), ("idle", False), ("of my own", False), ("\x1b[31m", False)],
)
@pytest_twisted.ensureDeferred
async def test_close(tmp_path: Path, code: str, stays: bool) -> None:
    """A game server's CLOSE is passed on at once with its code, also if it stays itself; it gets none back."""

    async def script(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        stream.send(message(CLOSE, code=code, message="The round is over."))
        if not stays:
            stream.close()
        server.got = await stream.until_close()

    async with Rig(tmp_path, servers=[("new", "chess", script)]) as rig, rig.canary():
        client = await rig.join("chess")
        with promptly():
            assert await rig.closed(client, code) == []
        with promptly(0.9 if stays else 0.0):
            await rig.end()
        assert rig.game_servers["new"].got == []


def breaks(end: Callable[[Stream], None], sent: bytes) -> Script:
    """A game server that lets everybody in, sends something after a frame came, and then goes."""

    async def script(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        await stream.body()
        stream.send_raw(sent)
        end(stream)

    return script


@pytest.mark.parametrize("sent", [b"", frame(b"\x10last")], ids=["nothing", "a frame"])
@pytest_twisted.ensureDeferred
async def test_server_closes(tmp_path: Path, sent: bytes) -> None:
    """When a game server ends its stream the client gets what it had sent, and then CLOSE server_lost."""
    script = breaks(Stream.close, sent)
    async with Rig(tmp_path, servers=[("bad", "chess", script)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.send(b"\x10go")
        with promptly():
            assert await rig.closed(client, "server_lost") == ([b"\x10last"] if sent else [])
            await rig.over("server_lost")


@pytest_twisted.ensureDeferred
async def test_server_breaks(tmp_path: Path) -> None:
    """When a game server's connection breaks the client gets CLOSE server_lost."""
    script = breaks(Stream.reset, b"")
    async with Rig(tmp_path, servers=[("bad", "chess", script)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.send(b"\x10go")
        assert await rig.closed(client, "server_lost") == []
        await rig.over("server_lost")


@pytest_twisted.ensureDeferred
async def test_server_closes_in_a_frame(tmp_path: Path) -> None:
    """When a game server goes in the middle of a frame the client gets that half, no CLOSE, and the end."""
    half = frame(b"\x10" + bytes(99))[:-1]
    script = breaks(Stream.close, half)
    async with Rig(tmp_path, servers=[("bad", "chess", script)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.send(b"\x10go")
        assert await client.rest() == []
        assert client.received == half
        await rig.over("server_lost")


@pytest_twisted.ensureDeferred
async def test_server_never_reads(tmp_path: Path) -> None:
    """A game server that takes nothing for stall_timeout while its client sends is server_lost."""

    async def deaf(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        stream.stop_reading()

    async with Rig(tmp_path, servers=[("deaf", "chess", deaf)]) as rig, rig.canary():
        client = await rig.join("chess")
        for _ in range(200):
            client.send(b"\x10" * 65_536)
        with promptly(0.3):
            assert await rig.closed(client, "server_lost") == []
            await rig.over("server_lost")
        await rig.game_servers["deaf"].streams[0].broken()


@pytest_twisted.ensureDeferred
async def test_server_ignores_close(tmp_path: Path) -> None:
    """A game server that gets CLOSE and does not close is given a second, and then let go."""

    async def stays(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        await stream.rest()

    async with Rig(tmp_path, servers=[("bad", "chess", stays)]) as rig, rig.canary():
        bad = rig.game_servers["bad"]
        bad.kind = StubbornStream
        client = await rig.join("chess")
        client.close()
        with promptly(0.9):
            await rig.over("client_lost")
            await bad.streams[0].broken()


@pytest_twisted.ensureDeferred
async def test_both_break(tmp_path: Path) -> None:
    """When both sides break at once the session ends once, with one of the two reasons."""
    streams: list[Stream] = []

    async def game(server: GameServer, stream: Stream) -> None:
        streams.append(stream)
        await server.admit(stream)
        await stream.rest()

    async with Rig(tmp_path, servers=[("new", "chess", game)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.reset()
        streams[0].reset()
        record = await rig.end()
        assert record.reason in ("client_lost", "server_lost")

"""gameproxy.client against a real proxy: the same scenes on Twisted's reactor and on asyncio's loop.

The proxy runs on this process's reactor; clients on asyncio run in a thread of their own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.threads import blockingCallFromThread, deferToThread

from gameproxy.client import (
    Backoff,
    Client,
    End,
    Guest,
    NotWelcomed,
    ProtocolError,
    Refused,
    Session,
    SessionEnded,
    keep_playing,
)
from gameproxy.client.reconnecting import sleep
from gameproxy.loops import Loop
from gameproxy.loops.on_asyncio import AsyncioLoop
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.messages import Status
from tests.game_servers import end_game_servers
from tests.program import Program
from tests.real.rig import Rig
from tests.real.streams import (
    CLOSE,
    LONGEST_WAIT,
    REFUSED,
    GameServer,
    Stream,
    message,
)

Here = Callable[[Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""Has something done where the proxy is, on this process's reactor."""
Scene = Callable[[Loop, Here], Awaitable[None]]
FRAMES = 10_000
FLOOD = 4_000_000
"""Bytes that no buffers on the way hold."""


async def on_twisted(scene: Scene) -> None:
    """Play a scene on this process's reactor."""

    async def here(do: Callable[[], Awaitable[Any]]) -> Any:
        return await do()

    playing = Deferred.fromCoroutine(scene(TwistedLoop(reactor), here))  # type: ignore[arg-type]  # a coroutine
    await playing.addTimeout(4 * LONGEST_WAIT, reactor)


async def on_asyncio(scene: Scene) -> None:
    """Play a scene on a new loop of asyncio, in a thread."""

    async def main() -> None:
        loop = AsyncioLoop()
        faults: list[dict[str, Any]] = []
        loop.loop.set_exception_handler(lambda _, context: faults.append(context))

        async def here(do: Callable[[], Awaitable[Any]]) -> Any:
            async def call() -> Any:
                return await do()

            def call_there() -> Any:
                return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(call()))

            return await loop.in_thread(call_there)

        await asyncio.wait_for(scene(loop, here), 4 * LONGEST_WAIT)
        assert not faults, faults

    await deferToThread(asyncio.run, main())


both = pytest.mark.parametrize("play", [on_twisted, on_asyncio])
Play = Callable[[Scene], Awaitable[None]]


def number(index: int) -> bytes:
    """A frame that differs from the others, in size too."""
    return b"\x10" + struct.pack(">I", index) + bytes(index % 97)


@both
@pytest_twisted.ensureDeferred
async def test_frames_both_ways(tmp_path: Path, play: Play) -> None:
    """Ten thousand frames come back whole and in order; then the client leaves."""

    async def scene(loop: Loop, here: Here) -> None:
        client = Client(loop, "localhost", rig.port, Guest("ana", properties={"team": "red"}))
        session = await client.connect()
        assert session.welcome is not None
        assert (session.welcome.player, session.welcome.server) == ("guest:ana", "good")
        got: list[bytes] = []
        done = loop.txaio.create_future()

        def received(body: bytes) -> None:
            got.append(body)
            if len(got) == FRAMES:
                loop.txaio.resolve(done, None)

        session.on_frame = received
        for index in range(FRAMES):
            session.send(number(index))
            if session.behind:
                await session.drained()
        await done
        assert got == [number(index) for index in range(FRAMES)]
        assert (await session.leave("Bye.")).end is End.LEFT

    async with Rig(tmp_path) as rig:
        await play(scene)
        record = await rig.over("left")
        assert record.traffic.client_frames == record.traffic.server_frames == FRAMES
        assert rig.game_servers["good"].admits[0]["properties"] == {"team": "red"}


@both
@pytest_twisted.ensureDeferred
async def test_more_than_fits(tmp_path: Path, play: Play) -> None:
    """A client that sends more than all buffers on the way hold, while its echo comes back, comes to no standstill."""

    async def scene(loop: Loop, here: Here) -> None:
        async with await Client(loop, "127.0.0.1", rig.port, Guest("ana")).connect() as session:
            came = 0
            all_came = loop.txaio.create_future()

            def received(body: bytes) -> None:
                nonlocal came
                came += len(body)
                if came == 4 * FLOOD:
                    loop.txaio.resolve(all_came, None)

            session.on_frame = received
            for _ in range(4 * FLOOD // 100_000):
                session.send(b"\x10" + bytes(99_999))
                await session.drained()
            await all_came

    async with Rig(tmp_path) as rig:
        await play(scene)
        await rig.over("left")


async def flood(server: GameServer, stream: Stream) -> None:
    """Sends more than all buffers on the way hold."""
    await server.admit(stream)
    for index in range(FLOOD // 100):
        stream.send(b"\x10" + struct.pack(">I", index) + bytes(95))
    await stream.until_close()


@both
@pytest_twisted.ensureDeferred
async def test_nobody_receives(tmp_path: Path, play: Play) -> None:
    """Frames that nobody receives wait, not all of them at the client; and all come when somebody does. Who leaves
    before that has left in good order."""

    async def scene(loop: Loop, here: Here) -> None:
        client = Client(loop, "127.0.0.1", rig.port, Guest("ana", game="flood"))
        session = await client.connect()
        await sleep(loop, 0.2)
        assert len(session._unread) < 4000
        for index in range(FLOOD // 100):
            assert (await session.receive())[1:5] == struct.pack(">I", index)
        await session.leave()
        session = await client.connect()
        await sleep(loop, 0.2)
        assert (await session.leave()).end is End.LEFT

    async with Rig(tmp_path, [("s2", "flood", flood)]) as rig:
        await play(scene)
        await rig.over("left")
        await rig.over("left")


async def full(server: GameServer, stream: Stream) -> None:
    """Has no room."""
    await server.take_admit(stream)
    stream.send(message(REFUSED, code="full", message="No room."))
    await stream.rest()


@both
@pytest_twisted.ensureDeferred
async def test_queue_and_refusals(tmp_path: Path, play: Play) -> None:
    """How it waits is told while it waits; and then why it is not let in."""

    async def scene(loop: Loop, here: Here) -> None:
        told: list[Status] = []
        with pytest.raises(Refused) as refusal:
            await Client(loop, "127.0.0.1", rig.port, Guest("ana", game="full")).connect(
                told.append
            )
        assert refusal.value.code == "queue_timeout"
        assert told[0].state == "queued" and told[0].position == 1
        with pytest.raises(Refused) as refusal:
            await Client(loop, "127.0.0.1", rig.port, Guest("ana", game="chess")).connect()
        assert (refusal.value.code, refusal.value.retry_after) == ("unknown_game", None)

    async with Rig(tmp_path, [("s2", "full", full)], queue_timeout=0.6) as rig:
        await play(scene)
        await rig.over("queue_timeout")
        await rig.over("unknown_game")


@both
@pytest_twisted.ensureDeferred
async def test_given_up(tmp_path: Path, play: Play) -> None:
    """A client that gives up while it waits leaves nothing behind, here and at the proxy."""

    async def scene(loop: Loop, here: Here) -> None:
        waits = loop.txaio.create_future()
        client = Client(loop, "127.0.0.1", rig.port, Guest("ana", game="full"))

        async def connect() -> None:
            try:
                await client.connect(lambda status: loop.txaio.resolve(waits, None))
            except BaseException as error:
                assert type(error).__name__ == "CancelledError"

        connecting = loop.txaio.as_future(connect)
        await waits
        loop.txaio.cancel(connecting)
        await connecting

    async with Rig(tmp_path, [("s2", "full", full)]) as rig:
        await play(scene)
        await rig.over("client_lost")


async def checkmate(server: GameServer, stream: Stream) -> None:
    """Ends the game after a frame, with that as its code; or breaks the connection."""
    await server.admit(stream)
    stream.send(await stream.body())
    code = (await stream.body())[1:].decode()
    if code == "break":
        stream.reset()
    else:
        stream.send(message(CLOSE, code=code, message="Well played."))
        await stream.rest()


@both
@pytest_twisted.ensureDeferred
async def test_server_ends(tmp_path: Path, play: Play) -> None:
    """The end of a game is told with its code, after all that came before; a broken connection as such."""

    async def scene(loop: Loop, here: Here) -> None:
        client = Client(loop, "127.0.0.1", rig.port, Guest("ana", game="chess"))
        for code in ("checkmate", "break"):
            session = await client.connect()
            session.send(b"\x10e4")
            got = []
            try:
                async for body in session:
                    got.append(body)
                    session.send(b"\x10" + code.encode())
            except SessionEnded as end:
                assert (code, end.ending.code) == ("break", "server_lost")
            else:
                assert (code, session.ending.code) == ("checkmate", "checkmate")
                assert session.ending.message == "Well played."
            assert got == [b"\x10e4"]
            assert (await session.ended).end is End.CLOSED

    async with Rig(tmp_path, [("s2", "chess", checkmate)]) as rig:
        await play(scene)


async def plain_echo(server: GameServer, stream: Stream) -> None:
    """Echoes all, and knows nothing of proxies."""
    for _ in range(3):
        stream.send(await stream.body())
    stream.close()


@both
@pytest_twisted.ensureDeferred
async def test_plain(tmp_path: Path, play: Play) -> None:
    """In the dialect plain types are the game's, and the end of the stream is the end."""

    async def scene(loop: Loop, here: Here) -> None:
        session = await Client(loop, "127.0.0.1", rig.port, Guest(""), dialect="plain").connect()
        for body in (b"\x06", b"", b"\x01" * 5000):
            session.send(body)
            assert await session.receive() == body
        with pytest.raises(SessionEnded):
            await session.receive()
        assert (await session.ended).end is End.LOST

    servers = [("s2", "echo", plain_echo)]
    async with Rig(tmp_path, servers, dialect="plain", admission="none", good=False) as rig:
        await play(scene)


@both
@pytest_twisted.ensureDeferred
async def test_preamble(tmp_path: Path, play: Play) -> None:
    """In the dialect preamble types are the game's from WELCOME on."""

    async def scene(loop: Loop, here: Here) -> None:
        async with await Client(
            loop, "127.0.0.1", rig.port, Guest("ana"), dialect="preamble"
        ).connect() as session:
            assert session.welcome is not None
            for body in (b"\x02{}", b"", b"\x01" * 5000):
                session.send(body)
                assert await session.receive() == body

    async with Rig(tmp_path, dialect="preamble") as rig:
        await play(scene)
        await rig.over("client_lost")


@both
@pytest_twisted.ensureDeferred
async def test_other_things_that_listen(tmp_path: Path, play: Play) -> None:
    """A proxy of another dialect, and nobody at all, are told apart."""

    async def scene(loop: Loop, here: Here) -> None:
        other = Client(loop, "127.0.0.1", rig.port, Guest("ana"))
        with pytest.raises((ProtocolError, NotWelcomed)):  # its game server echoes AUTH
            await other.connect()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            free = listener.getsockname()[1]
        with pytest.raises(OSError) as error:
            await Client(loop, "127.0.0.1", free, Guest("ana")).connect()
        assert not isinstance(error.value, NotWelcomed)

    servers = [("s2", "echo", plain_echo)]
    async with Rig(tmp_path, servers, dialect="plain", admission="none", good=False) as rig:
        await play(scene)


CONFIG = """
[proxy]
listen = ["tcp:{port}:interface=127.0.0.1"]
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


@both
@pytest_twisted.ensureDeferred
async def test_restarts(tmp_path: Path, play: Play) -> None:
    """A client keeps playing over a proxy that is killed and one that is stopped, until it has had enough."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    file = tmp_path / "gameproxy.toml"
    file.write_text(CONFIG.format(port=port, python=sys.executable))
    programs: list[Program] = []

    async def start() -> None:
        twist = str(Path(sys.executable).with_name("twist"))
        arguments = [twist, "--log-format=text", "gameproxy", "--config", str(file)]
        programs.append(Program(arguments, tmp_path))
        await programs[-1].says("starting on")

    async def scene(loop: Loop, here: Here) -> None:
        endings: list[str] = []
        pauses: list[float] = []

        async def game(session: Session) -> str:
            session.send(b"\x10hello")
            assert await session.receive() == b"\x10hello"
            if len(programs) == 3:
                return "enough"
            await here(lambda: programs[-1].end("KILL" if len(programs) == 1 else "TERM"))
            ending = await session.ended
            endings.append(ending.code)
            await here(start)
            raise SessionEnded(ending)

        result = await keep_playing(
            Client(loop, "127.0.0.1", port, Guest("ana")),
            game,
            entropy=os.urandom,
            backoff=Backoff(first=0.05, longest=0.5),
            on_pause=lambda seconds, _: pauses.append(seconds),
        )
        assert (result, endings) == ("enough", ["server_lost", "draining"])
        assert len(pauses) >= 2

    try:
        await start()
        await play(scene)
    finally:
        for program in programs:
            await program.end()
        end_game_servers(tmp_path / "farm.db")


@both
@pytest_twisted.ensureDeferred
async def test_proxy_away(tmp_path: Path, play: Play) -> None:
    """While nobody listens it tries again and again, and is let in when there is a proxy."""

    async def scene(loop: Loop, here: Here) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            nobody = listener.getsockname()[1]
        client = Client(loop, "127.0.0.1", nobody, Guest("ana"))
        tries: list[Exception] = []

        def tried(seconds: float, reason: Exception) -> None:
            tries.append(reason)
            if len(tries) == 3:
                client._port = rig.port

        async def game(session: Session) -> None:
            session.send(b"\x10hello")
            await session.receive()

        await keep_playing(
            client, game, entropy=os.urandom, backoff=Backoff(first=0.02), on_pause=tried
        )
        assert len(tries) == 3
        assert all(isinstance(reason, OSError) for reason in tries)

    async with Rig(tmp_path) as rig:
        await play(scene)
        await rig.over("left")

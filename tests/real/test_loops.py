"""gameproxy.loops: the same scenes on Twisted's reactor and on asyncio, with real sockets

The other side of each connection is a plain socket, moved by a thread.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import defer, reactor
from twisted.internet.threads import deferToThread

from gameproxy.loops import FLUSH_TIME, Loop, Stream, on_asyncio, on_twisted
from gameproxy.loops.on_asyncio import AsyncioLoop
from gameproxy.loops.on_twisted import TwistedLoop
from tests.program import Program

HERE = "127.0.0.1"
LONGEST_WAIT = 30.0
LARGE = 16 * 1024 * 1024
"""Bytes that no system buffers for a connection."""
Scene = Callable[[Loop], Awaitable[None]]
Run = Callable[[Scene], Awaitable[None]]


@pytest.fixture(params=["twisted", "asyncio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a scene on one of the loops; asyncio's is in a thread."""

    async def on_reactor(scene: Scene) -> None:
        await scene(TwistedLoop(reactor))

    async def on_new_loop(scene: Scene) -> None:
        async def whole() -> None:
            await scene(AsyncioLoop())

        await deferToThread(asyncio.run, whole())

    return on_reactor if request.param == "twisted" else on_new_loop


class Notes:
    """A receiver that notes what comes.

    :ivar closes: how often it was told that the connection exists no more.
    """

    stream: Stream

    def __init__(self, opened: list[Notes] | None = None) -> None:
        self.data = bytearray()
        self.closes = 0
        self._opened = opened

    def opened(self, stream: Stream) -> None:
        self.stream = stream
        if self._opened is not None:
            self._opened.append(self)

    def received(self, data: bytes) -> None:
        self.data += data

    def closed(self) -> None:
        self.closes += 1


class Place:
    """A port of a loop's, the connections to it, and a plain socket that is connected."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.receivers: list[Notes] = []

    async def __aenter__(self) -> Place:
        self.listener = await self.loop.listen(HERE, 0, self.build)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.listener.close()
        for receiver in self.receivers:
            if not receiver.closes:
                receiver.stream.abort()
        await self.until(lambda: all(receiver.closes == 1 for receiver in self.receivers))

    def build(self) -> Notes:
        return Notes(self.receivers)

    async def peer(self) -> tuple[socket.socket, Notes]:
        """A plain socket, and the receiver of its connection."""
        before = len(self.receivers)
        peer = socket.socket()
        peer.settimeout(LONGEST_WAIT)
        await self.loop.in_thread(lambda: peer.connect((HERE, self.listener.port)))
        await self.until(lambda: len(self.receivers) > before)
        return peer, self.receivers[-1]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so."""
        give_up = time.monotonic() + LONGEST_WAIT
        while not condition():
            assert time.monotonic() < give_up, "it does not happen"
            await self.pause(0.005)

    async def pause(self, seconds: float) -> None:
        """Let the loop turn for so long."""
        await pause(self.loop, seconds)


async def pause(loop: Loop, seconds: float) -> None:
    """Let the loop turn for so long."""
    over = loop.txaio.create_future()
    loop.call_later(seconds, lambda: loop.txaio.resolve(over))
    await over


def read_all(peer: socket.socket, slowly: float = 0.0) -> bytes:
    """Read to the end of the stream.

    :param slowly: seconds to wait at first.
    """
    time.sleep(slowly)
    data = bytearray()
    while piece := peer.recv(1 << 20):
        data += piece
    return bytes(data)


def pattern(size: int) -> bytes:
    """Bytes in which nothing can be missing, or be out of place, unnoticed."""
    return b"".join(struct.pack(">I", number) for number in range(size // 4))


@pytest_twisted.ensureDeferred
async def test_echo(run: Run) -> None:
    """Two streams of the loop's own talk, and end in order; each is told once that it is over."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            client = Notes()
            await loop.connect(HERE, place.listener.port, 5.0, lambda: client)
            client.stream.write(b"hello")
            client.stream.write(b" you")
            await place.until(lambda: len(place.receivers) == 1)
            (server,) = place.receivers
            await place.until(lambda: server.data == b"hello you")
            server.stream.write(b"bye")
            await place.until(lambda: client.data == b"bye")
            client.stream.end()
            client.stream.end()
            client.stream.write(b"late")
            await place.until(lambda: server.closes == client.closes == 1)
            assert server.data == b"hello you"
            server.stream.end()
            server.stream.write(b"late")
            server.stream.pause()
            server.stream.resume()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_slow_reader(run: Run) -> None:
    """Who does not take what is written is not read from; what waits is counted; when it takes all, all has come in
    order, and it is read from again."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            taken: list[int] = []
            server.stream.on_taken = lambda: taken.append(server.stream.behind)
            assert server.stream.behind == 0
            data = pattern(LARGE)
            for start in range(0, LARGE, 65536):
                server.stream.write(data[start : start + 65536])
            await place.pause(0.1)
            waiting = server.stream.behind
            assert LARGE // 4 < waiting <= LARGE
            peer.sendall(b"unread")
            await place.pause(0.1)
            assert (server.data, taken) == (b"", [])
            server.stream.end()
            got = await loop.in_thread(lambda: read_all(peer))
            assert got == data
            peer.close()
            await place.until(lambda: server.closes == 1)
            assert server.stream.behind == 0

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_slow_reader_goes_on(run: Run) -> None:
    """A writer that hears that all was taken can go on; a stream that is to read on does so meanwhile."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            taken: list[int] = []
            server.stream.reads_on = True
            server.stream.on_taken = lambda: taken.append(server.stream.behind)
            data = pattern(LARGE)
            server.stream.write(data[:100_000])
            server.stream.write(data[100_000:])
            await place.pause(0.05)
            peer.sendall(b"read")
            await place.until(lambda: server.data == b"read")
            assert taken == []

            def read_most() -> bytes:
                got = bytearray()
                while len(got) < LARGE:
                    got += peer.recv(1 << 20)
                return bytes(got)

            assert await loop.in_thread(read_most) == data
            await place.until(lambda: bool(taken))
            assert set(taken) == {0}
            peer.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_slow_receiver(run: Run) -> None:
    """Who is paused is not sent more than the system buffers; resumed, it gets all, in order."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            server.stream.pause()
            server.stream.pause()
            data = pattern(LARGE)
            sent = loop.in_thread(lambda: peer.sendall(data))
            await place.pause(0.2)
            assert len(server.data) <= 1 << 18  # what was on its way
            server.stream.resume()
            await sent
            await place.until(lambda: len(server.data) == LARGE)
            assert server.data == data
            peer.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_end_with_unread_data(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written last arrives, and then the end, though there is data that is never read: no reset. The data is
    read all the same, so that it is seen when the other side closes: nobody waits until that is let go of."""
    for module in (on_asyncio, on_twisted):
        monkeypatch.setattr(module, "LINGER", 600.0)  # it is 1 s

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            for _ in range(20):
                peer, server = await place.peer()
                server.stream.pause()
                peer.sendall(bytes(50_000))
                server.stream.write(b"the last word")
                server.stream.end()
                assert await loop.in_thread(lambda peer=peer: read_all(peer, 0.01)) == (
                    b"the last word"
                )
                peer.sendall(b"and another thing")
                peer.close()
            await place.until(lambda: all(one.closes == 1 for one in place.receivers))
            assert all(one.data == b"" for one in place.receivers), "heard after the end"

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_end_with_unsent_data(run: Run) -> None:
    """All that was written before the end arrives, though the other side begins to read after more than a second."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            data = pattern(LARGE)
            server.stream.write(data)
            server.stream.end()
            assert await loop.in_thread(lambda: read_all(peer, 1.3)) == data
            peer.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_end_taken_late(run: Run) -> None:
    """Who has taken all, however late, has a second to close: then it is let go of."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            server.stream.write(bytes(LARGE))
            server.stream.end()
            await place.pause(0.5)
            assert len(await loop.in_thread(lambda: read_all(peer))) == LARGE
            before = time.monotonic()
            await place.until(lambda: server.closes == 1)
            assert 0.5 < time.monotonic() - before < FLUSH_TIME
            peer.close()

    await run(scene)


@pytest.mark.parametrize("written", [b"word", bytes(LARGE)])
@pytest_twisted.ensureDeferred
async def test_end_with_deaf_peer(
    run: Run, written: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who neither reads nor closes is let go of: a second after the end has reached it, or when there was time enough
    to read what waits."""
    for module in (on_asyncio, on_twisted):
        monkeypatch.setattr(module, "FLUSH_TIME", 0.5)  # it is 10 s

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            before = time.monotonic()
            server.stream.write(written)
            server.stream.end()
            await place.until(lambda: server.closes == 1)
            expected = 1.0 if len(written) < 10 else 0.5
            assert expected - 0.05 <= time.monotonic() - before < FLUSH_TIME
            peer.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_peer_ends_first(run: Run) -> None:
    """Who ends its own side gets what was written before; then the connection ends, without waiting for anybody."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            data = pattern(LARGE)
            server.stream.reads_on = True
            server.stream.write(data)
            peer.sendall(b"no more of me")
            peer.shutdown(socket.SHUT_WR)
            assert await loop.in_thread(lambda: read_all(peer, 0.1)) == data
            await place.until(lambda: server.closes == 1)
            assert server.data == b"no more of me"
            peer.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_peer_resets(run: Run) -> None:
    """A connection that breaks is over; to end or abort it then changes nothing."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            await place.until(lambda: server.closes == 1)
            server.stream.write(b"late")
            server.stream.end()
            server.stream.abort()
            peer, server = await place.peer()
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            server.stream.end()  # before it is noticed
            await place.until(lambda: server.closes == 1)

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_abort(run: Run) -> None:
    """An aborted connection is reset at once."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            peer, server = await place.peer()
            server.stream.write(bytes(LARGE))
            server.stream.abort()
            with pytest.raises(ConnectionResetError):
                await loop.in_thread(lambda: read_all(peer))
            await place.until(lambda: server.closes == 1)
            peer.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_refused(run: Run) -> None:
    """Where nobody listens, and where no such host is, the error is the system's."""

    async def scene(loop: Loop) -> None:
        with socket.create_server((HERE, 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(OSError) as told:
            await loop.connect(HERE, port, 5.0, Notes)
        assert not isinstance(told.value, TimeoutError)
        with pytest.raises(OSError):
            await loop.connect("no-such-host.invalid", port, 5.0, Notes)

    await run(scene)


class FullListener:
    """A port that takes no more connections: who connects hears nothing."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind((HERE, 0))
        self._listener.listen(0)
        self.port: int = self._listener.getsockname()[1]
        self._clients = [socket.socket() for _ in range(3)]
        for client in self._clients:
            client.setblocking(False)
            client.connect_ex((HERE, self.port))

    def close(self) -> None:
        for one in (*self._clients, self._listener):
            one.close()


@pytest_twisted.ensureDeferred
async def test_timeout(run: Run) -> None:
    """What does not answer is given up in time, with an error that says so."""

    async def scene(loop: Loop) -> None:
        full = FullListener()
        before = time.monotonic()
        with pytest.raises(TimeoutError):
            await loop.connect(HERE, full.port, 0.2, Notes)
        assert 0.15 < time.monotonic() - before < LONGEST_WAIT
        full.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_cancel(run: Run) -> None:
    """Who has had enough of waiting for a connection cancels it; none is made then."""

    async def scene(loop: Loop) -> None:
        full = FullListener()
        built: list[Notes] = []

        def build() -> Notes:
            built.append(Notes())
            return built[-1]

        connecting = loop.txaio.as_future(lambda: loop.connect(HERE, full.port, 10.0, build))
        await pause(loop, 0.05)
        connecting.cancel()
        with pytest.raises((defer.CancelledError, asyncio.CancelledError)):
            await connecting
        await pause(loop, 0.05)
        assert built == []
        full.close()

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_listen(run: Run) -> None:
    """A port that is taken cannot be listened at; when its listener is closed it can, and who is connected stays so."""

    async def scene(loop: Loop) -> None:
        async with Place(loop) as place:
            port = place.listener.port
            assert port > 0
            with pytest.raises(OSError):
                await loop.listen(HERE, port, Notes)
            peer, server = await place.peer()
            await place.listener.close()
            await (await loop.listen(HERE, port, Notes)).close()
            peer.sendall(b"still here")
            await place.until(lambda: server.data == b"still here")
            peer.close()
            assert place.listener.port == port

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_thread(run: Run) -> None:
    """What is done in a thread gives its result, or its error, and the loop turns meanwhile."""

    async def scene(loop: Loop) -> None:
        turns: list[None] = []
        loop.call_later(0.02, lambda: turns.append(None))

        def work() -> str:
            time.sleep(0.1)
            return "done"

        assert await loop.in_thread(work) == "done"
        assert turns == [None]
        with pytest.raises(ZeroDivisionError):
            await loop.in_thread(lambda: 1 // 0)

    await run(scene)


@pytest_twisted.ensureDeferred
async def test_later(run: Run) -> None:
    """A timer comes at its time, and not when it is cancelled; time is the system's."""

    async def scene(loop: Loop) -> None:
        assert abs(loop.seconds() - time.time()) < LONGEST_WAIT
        calls: list[str] = []
        before = time.monotonic()
        loop.call_later(0.05, lambda: calls.append("never")).cancel()
        await pause(loop, 0.1)
        assert calls == []
        assert 0.09 < time.monotonic() - before < LONGEST_WAIT

    await run(scene)


PROGRAM = """
import sys
from gameproxy.loops.on_{name} import {kind}
loop = {made}
over = loop.txaio.create_future()
async def program():
    if "fails" in sys.argv:
        raise SystemError("it fails")
    if "ends" in sys.argv:
        return
    loop.log_to_stderr()
    loop.make_logger().warn("log: {{what}}", what="running")
    await over
    print("ended in order", flush=True)
loop.run(program, lambda: loop.txaio.resolve(over))
print("after", flush=True)
"""
PROGRAMS = {
    "twisted": PROGRAM.format(
        name="twisted",
        kind="TwistedLoop",
        made="TwistedLoop(__import__('twisted.internet.reactor').internet.reactor)",
    ),
    "asyncio": PROGRAM.format(name="asyncio", kind="AsyncioLoop", made="AsyncioLoop()"),
}


async def run_program(
    folder: Path, name: str, argument: str = "", end: str | None = None
) -> tuple[int, Any]:
    """Run a program on a loop of this name; its exit status and output.

    :param end: the signal that ends it.
    """
    program = Program([sys.executable, "-c", PROGRAMS[name], argument], folder)
    if end is None:
        return await program.over(), program.output
    await program.says("log: running")
    return await program.end(end), program.output


@pytest.mark.parametrize("end", ["TERM", "INT"])
@pytest.mark.parametrize("name", PROGRAMS)
@pytest_twisted.ensureDeferred
async def test_signals(tmp_path: Path, name: str, end: str) -> None:
    """SIGTERM and Ctrl-C have a program end in its own way, and what it logs is seen."""
    status, output = await run_program(tmp_path, name, end=end)
    assert output.index("ended in order\n") < output.index("after\n")
    assert status == 0 or (name == "twisted" and status == -signal.SIGINT), output


@pytest.mark.parametrize("name", PROGRAMS)
@pytest_twisted.ensureDeferred
async def test_program_ends(tmp_path: Path, name: str) -> None:
    """A program that ends by itself is over; one that fails ends with what it raised."""
    status, output = await run_program(tmp_path, name, "ends")
    assert (status, output) == (0, "after\n")
    status, output = await run_program(tmp_path, name, "fails")
    assert status == 1
    assert output.rstrip().endswith("SystemError: it fails")

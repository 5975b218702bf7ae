"""asyncio's event loop as a loop."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar, cast

import txaio.aio

from gameproxy.loops import LINGER, Listener, Receiver, Timer

T = TypeVar("T")


class AsyncioLoop:
    """asyncio's event loop.

    :param loop: the program's; ``None``: the running one, or a new one, which :meth:`run` runs.
    :param clock: gives seconds since the epoch.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.loop = loop or _running_loop() or asyncio.new_event_loop()
        self.seconds = clock
        self.txaio = txaio.aio.with_config(loop=self.loop)

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        return self.loop.call_later(delay, call)

    async def listen(self, host: str, port: int, build: Callable[[], Receiver]) -> Listener:
        server = await self.loop.create_server(
            lambda: AsyncioStream(self.loop, build()), host, port, backlog=1024
        )
        return _Listener(server)

    async def connect(
        self, host: str, port: int, timeout: float, build: Callable[[], Receiver]
    ) -> None:
        connecting = self.loop.create_connection(
            lambda: AsyncioStream(self.loop, build()), host, port
        )
        await asyncio.wait_for(connecting, timeout)

    def in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        return self.loop.run_in_executor(None, call)

    def run(self, program: Callable[[], Awaitable[object]], stop: Callable[[], object]) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.add_signal_handler(number, stop)
        try:
            self.loop.run_until_complete(self.txaio.as_future(program))
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.loop.remove_signal_handler(number)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


class _Listener:
    def __init__(self, server: asyncio.Server) -> None:
        self._server = server
        self.port = cast(int, server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        self._server.close()


class AsyncioStream(asyncio.Protocol):
    """A connection: an asyncio protocol that hands on what comes."""

    _transport: asyncio.Transport

    def __init__(self, loop: asyncio.AbstractEventLoop, receiver: Receiver) -> None:
        self._loop = loop
        self._receiver = receiver
        self._full = False
        self._paused = False
        self._lingering: asyncio.TimerHandle | None = None
        self._ended = False
        self._closed = False
        self.behind = 0
        self.reads_on = False
        self.on_taken: Callable[[], object] | None = None

    # What is written

    def write(self, data: bytes) -> None:
        if self._ended:
            return
        if self._full:
            self.behind += len(data)
        self._transport.write(data)

    def pause(self) -> None:
        self._paused = True
        self._read_or_not()

    def resume(self) -> None:
        self._paused = False
        self._read_or_not()

    def end(self) -> None:
        if self._ended:
            return
        self._ended = True
        self._transport.write_eof()
        self._lingering = self._loop.call_later(LINGER, self._transport.abort)
        self._read_or_not()

    def abort(self) -> None:
        self._ended = True
        self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # which sets TCP_NODELAY itself
        self._receiver.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._ended:
            self._receiver.received(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = self._closed = True
        if self._lingering is not None:
            self._lingering.cancel()
        self._receiver.closed()

    def pause_writing(self) -> None:
        self._full = True
        self._read_or_not()

    def resume_writing(self) -> None:
        self._full = False
        self.behind = 0
        self._read_or_not()
        if self.on_taken is not None:
            self.on_taken()

    def _read_or_not(self) -> None:
        if self._closed:
            return
        # Doing either twice changes nothing.
        stops = self._paused or (self._full and not self.reads_on)
        if stops and not self._ended:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

"""asyncio's event loop as a loop."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import txaio.aio

from gameproxy.loops import FLUSH_TIME, LINGER, Listener, Receiver, Timer

T = TypeVar("T")


class AsyncioLoop:
    """asyncio's event loop.

    :param loop: the program's; ``None``: the running one, or a new one, which :meth:`run` runs, and closes.
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
        self.make_logger: Callable[[], Any] = txaio.aio.make_logger

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

    def log_to_stderr(self) -> None:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s [%(name)s] %(message)s")

    def run(self, program: Callable[[], Awaitable[object]], stop: Callable[[], object]) -> None:
        async def main() -> None:
            for number in (signal.SIGTERM, signal.SIGINT):
                self.loop.add_signal_handler(number, stop)
            await program()

        with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
            runner.run(main())


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
        self._deadline: asyncio.TimerHandle | None = None
        self._ended = False
        self._closed = False
        self.reads_on = False
        self.on_taken: Callable[[], object] | None = None

    # What is written

    @property
    def behind(self) -> int:
        return self._transport.get_write_buffer_size() if self._full else 0

    def write(self, data: bytes) -> None:
        if not self._ended:
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
        self._abort_in(FLUSH_TIME)
        try:
            self._transport.write_eof()
        except OSError:  # it is broken already
            self._transport.abort()
            return
        if self._transport.get_write_buffer_size():
            self._transport.set_write_buffer_limits(high=0)  # have it tell when all is sent
        else:
            self._abort_in(LINGER)
        self._read_or_not()

    def abort(self) -> None:
        self._ended = True
        # Or the system would go on sending what it has taken.
        connection = self._transport.get_extra_info("socket")
        if not self._closed:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # which sets TCP_NODELAY itself
        self._receiver.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._ended:
            self._receiver.received(data)

    def eof_received(self) -> None:
        # The transport closes when all is sent.
        if not self._ended:
            self._ended = True
            self._abort_in(FLUSH_TIME)

    def connection_lost(self, error: Exception | None) -> None:
        self._ended = self._closed = True
        if self._deadline is not None:
            self._deadline.cancel()
        self._receiver.closed()

    def pause_writing(self) -> None:
        self._full = True
        self._read_or_not()

    def resume_writing(self) -> None:
        self._full = False
        if self._ended:
            self._abort_in(LINGER)
        self._read_or_not()
        if self.on_taken is not None:
            self.on_taken()

    def _abort_in(self, seconds: float) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = self._loop.call_later(seconds, self.abort)

    def _read_or_not(self) -> None:
        if self._closed:
            return
        # Doing either twice changes nothing.
        stops = self._paused or (self._full and not self.reads_on)
        if stops and not self._ended:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

"""Twisted's reactor as a loop."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import txaio.tx
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, maybeDeferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.error import BindError, ConnectError, ConnectingCancelledError
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHalfCloseableProtocol,
    IListeningPort,
    IPushProducer,
    IReactorTime,
    IStreamClientEndpoint,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import globalLogBeginner, textFileLogObserver
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.interfaces import Reactor
from gameproxy.loops import FLUSH_TIME, LINGER, Listener, Receiver, Timer

T = TypeVar("T")


class TwistedLoop:
    """Twisted's event loop, or one that is like it: a simulated one, or a test's.

    :param reactor: the program's.
    """

    def __init__(self, reactor: Reactor) -> None:
        self.reactor = reactor
        self.txaio: Any = txaio.tx  # of which nothing is used that needs a reactor
        self.make_logger: Callable[[], Any] = txaio.tx.make_logger

    def seconds(self) -> float:
        return self.reactor.seconds()

    def call_later(self, delay: float, call: Callable[[], object]) -> Timer:
        return self.reactor.callLater(delay, call)

    def listen(self, host: str, port: int, build: Callable[[], Receiver]) -> Awaitable[Listener]:
        try:
            bound = self.reactor.listenTCP(
                port, _StreamFactory(self.reactor, build), backlog=1024, interface=host
            )
        except BindError as error:
            return fail(OSError(str(error)))
        return succeed(_Listener(bound))

    def connect(
        self, host: str, port: int, timeout: float, build: Callable[[], Receiver]
    ) -> Awaitable[None]:
        endpoint: IStreamClientEndpoint
        if isIPAddress(host):
            endpoint = TCP4ClientEndpoint(self.reactor, host, port, timeout)
        elif isIPv6Address(host):
            endpoint = TCP6ClientEndpoint(self.reactor, host, port, timeout)
        else:
            endpoint = HostnameEndpoint(self.reactor, host, port, timeout)
        connected = endpoint.connect(_StreamFactory(self.reactor, build))
        return connected.addCallbacks(lambda _: None, _as_os_error)

    def in_thread(self, call: Callable[[], T]) -> Awaitable[T]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), call)

    def log_to_stderr(self) -> None:
        globalLogBeginner.beginLoggingTo(
            [textFileLogObserver(sys.stderr)], redirectStandardIO=False
        )

    def run(self, program: Callable[[], Awaitable[object]], stop: Callable[[], object]) -> None:
        reactor: Any = self.reactor  # IReactorCore too
        ended: Deferred[None] = Deferred()
        failures: list[Failure] = []
        shutting_down = False

        def shut_down() -> Deferred[None]:
            nonlocal shutting_down
            shutting_down = True
            if not ended.called:
                stop()
            return ended

        def over(_: object) -> None:
            ended.callback(None)
            if not shutting_down:
                reactor.stop()

        def start() -> None:
            done: Deferred[object] = self.txaio.as_future(program)
            done.addErrback(failures.append).addCallback(over)

        reactor.addSystemEventTrigger("before", "shutdown", shut_down)
        reactor.callWhenRunning(start)  # when it minds signals
        reactor.run()
        for failure in failures:
            failure.raiseException()


class _Listener:
    def __init__(self, port: IListeningPort) -> None:
        self._port = port
        self.port = cast(IPv4Address, port.getHost()).port

    def close(self) -> Awaitable[None]:
        return maybeDeferred(self._port.stopListening).addCallback(lambda _: None)


class _StreamFactory(ServerFactory):
    noisy = False

    def __init__(self, reactor: IReactorTime, build: Callable[[], Receiver]) -> None:
        self._reactor = reactor
        self._build = build

    def buildProtocol(self, addr: IAddress | None) -> TwistedStream:
        return TwistedStream(self._reactor, self._build())


@implementer(IHalfCloseableProtocol, IPushProducer)
class TwistedStream(Protocol):
    """A connection: a Twisted protocol that hands on what comes.

    It is its own transport's producer: what the transport has it pause, when the other side does not take what is
    written, is the reading. What is written meanwhile is held here.
    """

    transport: ITCPTransport

    def __init__(self, reactor: IReactorTime, receiver: Receiver) -> None:
        self._reactor = reactor
        self._receiver = receiver
        self._full = False
        self._paused = False
        self._held: deque[bytes] = deque()
        self._deadline: IDelayedCall | None = None
        self._ended = False
        self.behind = 0
        self.reads_on = False
        self.on_taken: Callable[[], object] | None = None

    # What is written

    def write(self, data: bytes) -> None:
        if self._ended:
            return
        if self._full:
            self._held.append(data)
            self.behind += len(data)
        else:
            self.transport.write(data)

    def pause(self) -> None:
        self._paused = True
        self._read_or_not()

    def resume(self) -> None:
        self._paused = False
        self._read_or_not()

    def end(self) -> None:
        if self._ended or not self.connected:
            return
        self._finish()
        self.transport.loseWriteConnection()
        self._read_or_not()

    def abort(self) -> None:
        self._ended = True
        self.transport.abortConnection()

    # What Twisted calls

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self.transport.registerProducer(self, True)  # type: ignore[attr-defined]  # an IConsumer too
        self._receiver.opened(self)

    def dataReceived(self, data: bytes) -> None:
        if not self._ended:
            self._receiver.received(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self._ended = True
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._receiver.closed()

    def readConnectionLost(self) -> None:
        """The other side has ended its own."""
        if not self._ended:
            self._finish()
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """All is sent, and so is the end."""
        if self._deadline is not None:
            self._deadline.reset(LINGER)

    def pauseProducing(self) -> None:
        self._full = True
        self._read_or_not()

    def resumeProducing(self) -> None:
        self._full = False
        while self._held and not self._full:
            data = self._held.popleft()
            self.behind -= len(data)
            self.transport.write(data)
        self._read_or_not()
        if self.on_taken is not None and not self._full:
            self.on_taken()

    def stopProducing(self) -> None:
        """The connection is lost, which :meth:`connectionLost` tells too."""

    def _finish(self) -> None:
        """Write the last, for which there is not for ever."""
        self._ended = True
        self.transport.unregisterProducer()  # type: ignore[attr-defined]  # an IConsumer too
        self.transport.writeSequence(list(self._held))
        self._held.clear()
        self.behind = 0
        self._deadline = self._reactor.callLater(FLUSH_TIME, self.transport.abortConnection)

    def _read_or_not(self) -> None:
        if not self.connected:
            return
        transport = cast(IPushProducer, self.transport)
        stops = self._paused or (self._full and not self.reads_on)
        if stops and not self._ended:
            transport.pauseProducing()
        else:
            transport.resumeProducing()


def _as_os_error(failure: Failure) -> Failure:
    """What Twisted says of a connection that could not be made, as an error of the system's kind; and that it was
    cancelled, as of all else that is."""
    error = failure.value
    if isinstance(error, ConnectTimeout):
        return Failure(TimeoutError("no answer in time"))
    if isinstance(error, ConnectError):
        return Failure(OSError(str(error)))
    if isinstance(error, ConnectingCancelledError):
        return Failure(CancelledError(str(error)))
    return failure

"""The reactor of a simulated process: Twisted's real TCP transports on simulated sockets, and virtual time."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from twisted.internet import tcp
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address
from twisted.internet.base import DelayedCall
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import (
    IHostResolution,
    IReactorCore,
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorProcess,
    IReactorTCP,
    IReactorThreads,
    IReactorTime,
    IResolutionReceiver,
)
from twisted.internet.posixbase import _DisconnectSelectableMixin
from twisted.logger import Logger
from zope.interface import implementer

from gameproxy.simulation.kernel import MICROSECONDS, Event
from gameproxy.simulation.machines import Process
from gameproxy.simulation.sockets import SimSocket
from gameproxy.simulation.threads import SimThreadPool

_log = Logger()


@implementer(
    IReactorTime,
    IReactorTCP,
    IReactorCore,
    IReactorFDSet,
    IReactorThreads,
    IReactorProcess,
    IReactorPluggableNameResolver,
)
class SimReactor(_DisconnectSelectableMixin):
    """The reactor of one process. It runs while the kernel does.

    :param spawn: starts another process, for ``spawnProcess``.
    """

    def __init__(self, process: Process, spawn: Callable[..., Any] | None = None) -> None:
        self.process = process
        self.kernel = process.kernel
        self.running = True
        self.nameResolver: Any = self
        self.thread_pool = SimThreadPool(process)
        self._spawn = spawn
        self._calls: dict[DelayedCall, tuple[Event, int]] = {}
        self._count = 0
        self._triggers: list[tuple[str, str, Callable[..., object], tuple[Any, ...]]] = []

    # IReactorTime

    def seconds(self) -> float:
        return (self.kernel.now + self.process.machine.skew) / MICROSECONDS

    def callLater(
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> DelayedCall:
        if delay < 0:
            raise ValueError(f"{delay} seconds from now is past")
        call = DelayedCall(
            self.seconds() + delay, callable, args, kw, self._cancelled, self._moved, self.seconds
        )
        self._set(call, round(delay * MICROSECONDS))
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        return list(self._calls)

    def _cancelled(self, call: DelayedCall) -> None:
        self._calls.pop(call)[0].cancel()

    def _moved(self, call: DelayedCall) -> None:
        self._cancelled(call)
        self._wait_for(call)

    def _wait_for(self, call: DelayedCall) -> None:
        # By how much is kept, not until when: a clock that is set does not move what was to come in so many seconds.
        self._set(call, max(0, round((call.getTime() - self.seconds()) * MICROSECONDS)))

    def _set(self, call: DelayedCall, delay: int) -> None:
        self._count += 1
        event = self.kernel.after(delay, self.process.call, self._fire, call, self._count)
        self._calls[call] = event, self._count

    def _fire(self, call: DelayedCall, count: int) -> None:
        if self._calls.get(call, (None, 0))[1] != count:
            return  # cancelled or moved while the process stood still
        del self._calls[call]
        if call.delayed_time > 0:
            call.activate_delay()
            self._wait_for(call)
            return
        call.called = 1
        try:
            call.func(*call.args, **call.kw)
        except BaseException:
            _log.failure("in a call that was to come")

    # IReactorFDSet

    def addReader(self, reader: Any) -> None:
        socket: SimSocket = reader.socket
        socket.dispatch = self._dispatch
        socket.watch_reading(reader)

    def addWriter(self, writer: Any) -> None:
        socket: SimSocket = writer.socket
        socket.dispatch = self._dispatch
        socket.watch_writing(writer)

    def removeReader(self, reader: Any) -> None:
        if getattr(reader, "socket", None) is not None:
            reader.socket.reader = None

    def removeWriter(self, writer: Any) -> None:
        if getattr(writer, "socket", None) is not None:
            writer.socket.writer = None

    def removeAll(self) -> list[Any]:
        return []

    def getReaders(self) -> list[Any]:
        return [s.reader for s in self.process.sockets.values() if s.reader is not None]

    def getWriters(self) -> list[Any]:
        return [s.writer for s in self.process.sockets.values() if s.writer is not None]

    def _dispatch(self, selectable: Any, reading: bool) -> None:
        try:
            why = selectable.doRead() if reading else selectable.doWrite()
        except BaseException:
            why = sys.exc_info()[1]
            _log.failure("in a transport")
        if why:
            self._disconnectSelectable(selectable, why, reading)

    # IReactorTCP

    def listenTCP(self, port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
        listening = SimPort(port, factory, backlog, interface, self)
        listening.startListening()
        return listening

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: tuple[str, int] | None = None,
    ) -> Any:
        connector = _SimConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    # IReactorCore

    def callWhenRunning(self, callable: Callable[..., Any], *args: object, **kw: object) -> None:
        # Never at once: adbapi would start real threads while it is being made.
        self.callFromThread(callable, *args, **kw)

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., Any], *args: object, **kw: object
    ) -> Any:
        trigger = (phase, eventType, callable, args)
        self._triggers.append(trigger)
        return trigger

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        self._triggers.remove(triggerID)

    def fireSystemEvent(self, eventType: str) -> None:
        """Call what waits for an event, "before" before "during" before "after"; none waits for Deferreds."""
        for phase in ("before", "during", "after"):
            for trigger in list(self._triggers):
                if trigger[:2] == (phase, eventType):
                    trigger[2](*trigger[3])

    def run(self) -> None:
        """The kernel runs all reactors."""
        raise NotImplementedError

    crash = run

    def iterate(self, delay: float = 0) -> None:
        """The kernel runs all reactors."""
        raise NotImplementedError

    def stop(self) -> None:
        self.running = False
        self.callFromThread(self.process.end)

    def resolve(self, name: str, timeout: Any = ()) -> Deferred[str]:
        machine = self._machine_named(name)
        return succeed(machine) if machine else fail(DNSLookupError(name))

    # IReactorPluggableNameResolver, and its resolver

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Any = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        resolution = HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        address = self._machine_named(hostName)
        if address is not None:
            resolutionReceiver.addressResolved(IPv4Address("TCP", address, portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution

    def installNameResolver(self, resolver: Any) -> Any:
        previous, self.nameResolver = self.nameResolver, resolver
        return previous

    def _machine_named(self, name: str) -> str | None:
        if name.replace(".", "").isdigit():
            return name
        for machine in self.kernel.machines.values():
            if machine.name == name:
                return machine.address
        return None

    # IReactorThreads: nothing runs beside anything else

    def callFromThread(self, callable: Callable[..., Any], *args: object, **kw: object) -> None:
        self.thread_pool.tell(lambda: callable(*args, **kw))

    def callInThread(self, callable: Callable[..., Any], *args: object, **kw: object) -> None:
        self.thread_pool.callInThread(callable, *args, **kw)

    def getThreadPool(self) -> Any:
        return self.thread_pool

    def suggestThreadPoolSize(self, size: int) -> None:
        """There is one thread."""

    # IReactorProcess

    def spawnProcess(self, processProtocol: Any, executable: Any, *args: Any, **kw: Any) -> Any:
        if self._spawn is None:
            raise OSError("nothing can be started here")
        return self._spawn(self, processProtocol, executable, *args, **kw)


class _SimClient(tcp.Client):
    def __init__(
        self, host: str, port: int, bindAddress: Any, connector: Any, reactor: SimReactor
    ) -> None:
        self._process = reactor.process
        super().__init__(host, port, bindAddress, connector, reactor)

    def createInternetSocket(self) -> Any:
        return SimSocket(self._process)


class _SimConnector(tcp.Connector):
    reactor: Any

    def _makeTransport(self) -> Any:
        return _SimClient(self.host, self.port, self.bindAddress, self, self.reactor)


class SimPort(tcp.Port):
    """A listening port on a simulated socket."""

    reactor: Any

    def createInternetSocket(self) -> Any:
        return SimSocket(self.reactor.process)

    def startListening(self) -> None:
        with _Reserved(self.reactor.process):
            super().startListening()

    def doRead(self) -> None:
        with _Reserved(self.reactor.process):
            super().doRead()


class _Reserved:
    """Stands in for the descriptor that Twisted keeps for a process that is out of them, while a port of ours accepts.

    Twisted has one for all its ports, and it is a real one.
    """

    def __init__(self, process: Process) -> None:
        self._process = process

    def __enter__(self) -> None:
        self._real = tcp._reservedFD
        tcp._reservedFD = _Reservation(self._process)  # type: ignore[assignment]  # has what is used of it

    def __exit__(self, *_: object) -> None:
        tcp._reservedFD = self._real


class _Reservation:
    def __init__(self, process: Process) -> None:
        self._process = process
        self._is_kept = True

    def available(self) -> bool:
        return self._is_kept

    def reserve(self) -> None:
        self._is_kept = True

    def __enter__(self) -> None:
        self._is_kept = False
        self._process.descriptors_max += 1

    def __exit__(self, *_: object) -> None:
        self._process.descriptors_max -= 1
        self._is_kept = True

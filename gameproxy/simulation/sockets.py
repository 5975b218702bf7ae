"""Simulated TCP sockets: what Linux does with a socket, as far as Twisted's TCP transports can see it.

A socket has the methods of :class:`socket.socket` that those call, with the same results and errors.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from gameproxy.simulation.connections import SEGMENT_MAX, Address, End
from gameproxy.simulation.machines import ANY, LOOPBACK, Process
from gameproxy.simulation.network import SYN_LOST, SYN_REFUSED, SYN_RETRANSMIT_FIRST, SYN_RETRIES

KEEPALIVE_DEFAULTS: Final = {
    socket.TCP_KEEPIDLE: 7200,
    socket.TCP_KEEPINTVL: 75,
    socket.TCP_KEEPCNT: 9,
}
"""Linux's, in seconds and probes."""
_NOWHERE: Final = os.open(os.devnull, os.O_RDONLY)
"""The real descriptor that all sockets show: what is done with it reaches nothing."""
_TCP_INFO: Final = struct.Struct("=24xI24xII60xQ16xI")
"""``tcpi_unacked``, ``tcpi_last_data_recv``, ``tcpi_last_ack_recv``, ``tcpi_bytes_acked`` and ``tcpi_notsent_bytes`` in
Linux's ``struct tcp_info``; else zeros."""


class SimSocket(End):
    """A TCP socket of a process.

    :param connected_to: the other end, for one that is to be accepted.
    :raises OSError: EMFILE: the process has too many.
    """

    def __init__(self, process: Process, connected_to: SimSocket | None = None) -> None:
        super().__init__(process, connected_to)
        self.is_listening = False
        self.descriptor = 0
        self._options: dict[tuple[int, int], int] = {}
        self._resets_on_close = False
        self._backlog = 0
        if connected_to is None:
            self.descriptor = process.open(self)

    # What Twisted calls

    def fileno(self) -> int:
        return -1 if self.closed else _NOWHERE

    def setblocking(self, blocking: bool) -> None:
        if blocking:
            raise ValueError("nothing may block in a simulation")

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        if isinstance(value, bytes):
            if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
                self._resets_on_close = struct.unpack("ii", value) == (1, 0)
            return
        self._options[level, option] = value
        if (level, option) == (socket.SOL_SOCKET, socket.SO_KEEPALIVE) and value:
            self._keep_alive()

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            error, self._error = self._error, 0
            return error
        if (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO):
            unacknowledged = -(-(self._kept - len(self._outgoing)) // SEGMENT_MAX)
            silent = (self.kernel.now - self._heard_at) // 1000
            information = _TCP_INFO.pack(
                unacknowledged, silent, silent, self._acknowledged, len(self._outgoing)
            )
            return information[:size].ljust(size, b"\0")
        if level == socket.IPPROTO_TCP and option in KEEPALIVE_DEFAULTS:
            return self._option(option)
        return self._options.get((level, option), 0)

    def getsockname(self) -> Address:
        return self.local

    def getpeername(self) -> Address:
        if self.remote is None or self.state != "connected":
            raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))
        return self.remote

    def bind(self, address: Address) -> None:
        host, port = address
        self.local = (host or ANY, self.process.machine.bind(self, port))

    def listen(self, backlog: int) -> None:
        if not self.local[1]:
            self.bind((ANY, 0))
        self.state = "listening"
        self.is_listening = True
        self._backlog = backlog

    def accept(self) -> tuple[SimSocket, Address]:
        if not self._accepting:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        accepted = self._accepting[0]
        assert isinstance(accepted, SimSocket)
        accepted.descriptor = self.process.open(accepted)
        self._accepting.popleft()
        assert accepted.remote is not None
        return accepted, accepted.remote

    def connect_ex(self, address: Address) -> int:
        if self.state == "connecting":
            return errno.EALREADY
        if self.state != "new":
            return errno.EISCONN if self.state == "connected" else self._take_error()
        machine = self.process.machine
        host, _ = self.remote = address
        if not self.local[1]:
            source = LOOPBACK if host == LOOPBACK else machine.address
            self.local = (source, machine.bind(self, 0))
        self.state = "connecting"
        self._link = self.kernel.network.link(machine.address, self._machine_of(host))
        self.kernel.write("syn", self.name, self.local[1], *address)
        self._send_syn(0)
        return errno.EINPROGRESS

    def send(self, data: bytes | memoryview) -> int:
        if self._error:
            raise self._as_error(self._take_error())
        if self.state == "connecting":
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if self.state != "connected" or self._end_wanted:
            raise self._as_error(errno.EPIPE)
        conditions = self._conditions
        space = conditions.send_buffer - self._kept
        if space <= 0:
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        size = min(len(data), space)
        assert self._link is not None
        draw = self._link.draw
        if size > 1 and conditions.short_writes and draw(1000) < conditions.short_writes:
            size = 1 + draw(size - 1)
        self._outgoing += data[:size]
        self._kept += size
        self._pump()
        return size

    def recv(self, size: int) -> bytes:
        if self._incoming:
            data = bytes(self._incoming[:size])
            del self._incoming[:size]
            self._tell_window()
            return data
        if self._incoming_end:  # even if a reset came after it
            return b""
        if self._error:
            raise self._as_error(self._take_error())
        if self.state == "dead":
            return b""
        if self.state != "connected":
            raise self._as_error(errno.ENOTCONN)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def shutdown(self, how: int) -> None:
        if self.state != "connected":
            raise self._as_error(errno.ENOTCONN)
        if how != socket.SHUT_RD and not self._end_wanted:
            self._end_wanted = True
            self._pump()
        if how != socket.SHUT_WR:
            self._incoming_end = True
            self._readable()

    def close(self) -> None:
        if self.closed:
            return
        self.closed = True
        self.process.sockets.pop(self.descriptor, None)
        self.reader = self.writer = None
        self.kernel.write("close", self.name)
        if self.is_listening:
            self.is_listening = False
            for waiting in self._accepting:
                waiting._reset()
            self._accepting.clear()
        if self.state == "connected":
            if self._incoming or self._resets_on_close:
                self._reset()
            else:
                self._end_wanted = True
                self._pump()
        elif self.state != "dead":
            self.state = "dead"
        self.process.machine.unbind(self, self.local[1])

    # Connecting

    def _send_syn(self, attempt: int) -> None:
        if self.state != "connecting":
            return
        assert self._link is not None
        assert self.remote is not None
        if attempt > SYN_RETRIES:
            self._fail(errno.ETIMEDOUT)
            return
        if self._link.loses() or not self._is_there(self.remote[0]):
            self._send_syn_again(attempt)
            return
        self.kernel.after(self._link.delay(), self._syn_arrives, attempt)

    def _send_syn_again(self, attempt: int) -> None:
        """It is lost, or its answer is, or nobody takes it now."""
        self.kernel.reach(SYN_LOST)
        self.kernel.after(SYN_RETRANSMIT_FIRST << attempt, self._send_syn, attempt + 1)

    def _syn_arrives(self, attempt: int) -> None:
        if self.state != "connecting":
            return
        assert self.remote is not None
        kernel = self.kernel
        host, port = self.remote
        target = self._machine_of(host)
        machine = kernel.machines[target]
        listener = machine.listener(host, port)
        back = kernel.network.link(target, self.process.machine.address)
        if listener is None:
            kernel.reach(SYN_REFUSED)
            kernel.after(back.delay(), self._refused)
            return
        if len(listener._accepting) > listener._backlog or back.loses():
            self._send_syn_again(attempt)
            return
        accepted = SimSocket(listener.process, self)
        accepted.state = "connected"
        accepted.local, accepted.remote = self.remote, self.local
        accepted._link = back
        accepted._heard_at = kernel.now
        self.peer = accepted
        kernel.after(back.delay(), self._established, accepted, listener)

    def _established(self, accepted: SimSocket, listener: SimSocket) -> None:
        assert self._link is not None
        if self.state != "connecting":  # it was closed meanwhile
            accepted.state = "dead"
            return
        self.state = "connected"
        self._heard_at = self.kernel.now
        self.kernel.write("connected", self.name, accepted.name)
        delay = self._link.delay()
        self._last_arrival = self.kernel.now + delay
        self.kernel.after(delay, accepted._is_offered_by, listener)
        self._writable()

    def _is_offered_by(self, listener: SimSocket) -> None:
        if listener.closed:
            self._reset()
            return
        listener._accepting.append(self)
        listener._readable()

    def _refused(self) -> None:
        if self.state == "connecting":
            self._fail(errno.ECONNREFUSED)

    # Keepalive

    def _keep_alive(self) -> None:
        if self.state in ("connected", "connecting"):
            self.kernel.after(self._option_us(socket.TCP_KEEPIDLE), self._probe, 0)

    def _probe(self, unanswered: int) -> None:
        """Ask the peer whether it is there, if nothing was heard from it."""
        keeps = self._options.get((socket.SOL_SOCKET, socket.SO_KEEPALIVE))
        if self.state != "connected" or not keeps:
            return
        idle = self._option_us(socket.TCP_KEEPIDLE)
        silent = self.kernel.now - self._heard_at
        if silent < idle:
            self.kernel.after(idle - silent, self._probe, 0)
            return
        assert self.peer is not None
        assert self.peer._link is not None
        assert self._link is not None
        assert self.remote is not None
        if not self._link.down and not self.peer._link.down and self._is_there(self.remote[0]):
            if self.peer.state == "dead":
                self._receive_reset()
                return
            self._heard_at = self.kernel.now
            self.kernel.after(idle, self._probe, 0)
        elif unanswered >= self._option(socket.TCP_KEEPCNT):
            self._fail(errno.ETIMEDOUT)
        else:
            self.kernel.after(self._option_us(socket.TCP_KEEPINTVL), self._probe, unanswered + 1)

    def _option(self, option: int) -> int:
        return self._options.get((socket.IPPROTO_TCP, option), KEEPALIVE_DEFAULTS[option])

    def _option_us(self, option: int) -> int:
        return self._option(option) * 1_000_000

    # Words

    def _machine_of(self, host: str) -> str:
        """The own address of the machine that an address leads to."""
        if host == LOOPBACK:
            return self.process.machine.address
        machine = self.kernel.routes.get(host)
        return host if machine is None else machine.address

    def _is_there(self, host: str) -> bool:
        machine = self.kernel.machines.get(self._machine_of(host))
        return machine is not None and machine.powered

    def _take_error(self) -> int:
        error, self._error = self._error, 0
        return error

    def _as_error(self, number: int) -> OSError:
        return OSError(number, os.strerror(number))

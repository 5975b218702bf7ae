"""Simulated machines, and the processes on them."""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from gameproxy.simulation.kernel import Kernel
    from gameproxy.simulation.sockets import SimSocket

LOOPBACK: Final = "127.0.0.1"
ANY: Final = "0.0.0.0"  # noqa: S104 - nothing is bound to it
EPHEMERAL_PORTS: Final = range(32768, 61000)
FIRST_PID: Final = 1000
DESCRIPTORS_MAX: Final = 20_000


class Machine:
    """What has an address and a clock.

    :ivar skew: microseconds by which its clock is ahead of the kernel's.
    :ivar powered: whether it is there at all.
    """

    def __init__(self, kernel: Kernel, name: str, address: str) -> None:
        self.kernel = kernel
        self.name = name
        self.address = address
        self.skew = 0
        self.powered = True
        self.boots = 1
        self.processes: dict[int, Process] = {}
        self._bound: dict[int, SimSocket] = {}
        self._last_pid = FIRST_PID - 1
        self._last_port = 0

    def start(self, name: str) -> Process:
        """Start a process; what it does is for the caller.

        :param name: of its program. The second process of a name has ``#2`` behind it, and so on.
        """
        self._last_pid += 1
        process = Process(self, self._last_pid, self.kernel.unique(name))
        self.processes[process.pid] = process
        return process

    def bind(self, socket: SimSocket, port: int) -> int:
        """Give a socket a port.

        :param port: 0: any free one.
        :raises OSError: EADDRINUSE: another socket has it.
        """
        if port == 0:
            port = self.next_port()
            while port in self._bound:
                port = self.next_port()
        elif port in self._bound:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        self._bound[port] = socket
        return port

    def unbind(self, socket: SimSocket, port: int) -> None:
        """A socket needs its port no more."""
        if self._bound.get(port) is socket:
            del self._bound[port]

    def listener(self, address: str, port: int) -> SimSocket | None:
        """The socket that takes connections to one of the machine's addresses."""
        socket = self._bound.get(port)
        if socket is None or not socket.is_listening or socket.local[0] not in (ANY, address):
            return None
        return socket

    def reuse_ports(self) -> None:
        """Let ports that were used before come next, as far as they are free."""
        self._last_port = 0

    def next_port(self) -> int:
        """A port for a connection; they come again after all others."""
        self._last_port += 1
        return EPHEMERAL_PORTS[self._last_port % len(EPHEMERAL_PORTS)]

    def lose_power(self) -> None:
        """All that runs on it ends without a word to anybody."""
        self.powered = False
        self.kernel.write("power", self.name)
        for process in list(self.processes.values()):
            process.alive = False
        self._bound.clear()


class Process:
    """What has sockets, and calls that are to come.

    :ivar alive: whether it runs.
    :ivar descriptors_max: how many sockets it may have at once.
    """

    def __init__(self, machine: Machine, pid: int, name: str) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        self.pid = pid
        self.name = name
        self.alive = True
        self.descriptors_max = DESCRIPTORS_MAX
        self.sockets: dict[int, SimSocket] = {}
        self.sockets_made = 0
        self.started_at = machine.kernel.now
        self.signal_handlers: dict[int, Callable[[], object]] = {}
        """What its program does at a signal, instead of ending."""
        self.on_exit: list[Callable[[int, int | None], object]] = []
        """Called when it has ended, with its exit status, and the signal that ended it."""
        self.runs_since = machine.kernel.now
        """Since when it does not stand still."""
        self._frozen: deque[tuple[Callable[..., object], tuple[Any, ...]]] | None = None
        self._last_descriptor = 2

    def open(self, socket: SimSocket) -> int:
        """A descriptor for a socket.

        :raises OSError: EMFILE: there are too many.
        """
        if len(self.sockets) >= self.descriptors_max:
            raise OSError(errno.EMFILE, "Too many open files")
        self._last_descriptor += 1  # never one that another has had: a trace is easier to read so
        self.sockets[self._last_descriptor] = socket
        return self._last_descriptor

    def call(self, call: Callable[..., object], *arguments: Any) -> None:
        """Do something in this process: now; when it goes on, if it is frozen; never, if it has ended."""
        if not self.alive:
            return
        if self._frozen is not None:
            self._frozen.append((call, arguments))
        else:
            call(*arguments)

    @property
    def is_frozen(self) -> bool:
        """Whether it stands still."""
        return self._frozen is not None

    def freeze(self) -> None:
        """Stand still, as SIGSTOP has it."""
        if self._frozen is None:
            self.kernel.write("freeze", self.name)
            self._frozen = deque()

    def thaw(self) -> None:
        """Go on, with all that has come meanwhile."""
        if self._frozen is None:
            return
        self.kernel.write("thaw", self.name)
        self.runs_since = self.kernel.now
        waiting, self._frozen = self._frozen, None
        for call, arguments in waiting:
            self.kernel.after(0, self.call, call, *arguments)

    def end(self, status: int = 0, by_signal: int | None = None) -> None:
        """End at once: the system closes the sockets."""
        if not self.alive:
            return
        self.kernel.write("end", self.name, status, by_signal)
        self.alive = False
        self._frozen = None
        for socket in list(self.sockets.values()):
            socket.close()
        self.machine.processes.pop(self.pid, None)
        for call in self.on_exit:
            call(status, by_signal)

"""Processes that a simulated process starts, asks about, and signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.error import ProcessDone, ProcessExitedAlready, ProcessTerminated
from twisted.python.failure import Failure

from gameproxy.farm.processes import ProcessName
from gameproxy.simulation.chance import stream
from gameproxy.simulation.machines import Machine, Process
from gameproxy.simulation.reactor import SimReactor

START_TIME: Final = (20_000, 400_000)
"""Least and most microseconds from a process's start until its program runs."""
EXIT_TIME: Final = 500
"""Microseconds from a process's end until its parent hears of it."""

Program = Callable[[SimReactor, Sequence[str], Mapping[str, str]], object]
"""What a process does: called when it runs, with its reactor, arguments and environment."""


class SimProcesses:
    """What a process sees of the others on its machine; implements :class:`gameproxy.farm.processes.Processes`."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._machine = process.machine

    def me(self) -> ProcessName:
        return self.name(self._process.pid)

    def name(self, pid: int) -> ProcessName:
        process = self._machine.processes.get(pid)
        started = None if process is None else str(process.started_at)
        return ProcessName(pid, started, f"{self._machine.name} {self._machine.boots}")

    def is_gone(self, process: ProcessName) -> bool:
        return process != self.name(process.pid)

    def signal(self, process: ProcessName, number: int) -> bool:
        if self.is_gone(process):
            return False
        send_signal(self._machine, process.pid, number)
        return True


def send_signal(machine: Machine, pid: int, number: int) -> None:
    """Send a signal to a process that is there; what its program does not take ends it."""
    process = machine.processes[pid]
    if number == 0:
        return
    machine.kernel.write("signal", process.name, number)
    if number == signal.SIGSTOP:
        process.freeze()
    elif number == signal.SIGCONT:
        process.thaw()
    elif number in process.signal_handlers:
        process.call(process.signal_handlers[number])
    else:
        process.end(by_signal=number)


class Programs:
    """The programs of a world, by their names: what a started process runs.

    :param seed: of the run: how long starting takes is drawn from it.
    """

    def __init__(self, seed: int) -> None:
        self.programs: dict[str, Program] = {}
        self._seed = seed

    def spawn(
        self,
        reactor: SimReactor,
        protocol: Any,
        executable: str,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        path: str | None = None,
        **options: object,
    ) -> _Child:
        """Start a process beside another; what ``spawnProcess`` of its reactor does.

        The program is the first argument that is the name of one: what stands before it launches it.

        :raises OSError: there is no such program.
        """
        named = [number for number, word in enumerate(args) if word in self.programs]
        if not named:
            raise OSError(f"none of these programs is there: {' '.join(args)}")
        name = args[named[0]]
        process = reactor.process.machine.start(name)
        process.kernel.write("spawn", process.name, reactor.process.name)
        child = _Child(reactor.process, protocol, process)
        least, most = START_TIME
        delay = least + stream(self._seed, "start", process.machine.name, process.pid).randrange(
            most - least
        )
        run = self.programs[name]
        child_reactor = SimReactor(process, self.spawn)
        arguments = args[named[0] :]
        process.kernel.after(delay, process.call, run, child_reactor, arguments, dict(env or {}))
        return child


class _Child:
    """A started process, as its parent has it."""

    def __init__(self, parent: Process, protocol: Any, process: Process) -> None:
        self.pid = process.pid
        self._process = process
        self._protocol = protocol
        self._parent = parent
        process.on_exit.append(self._exited)
        protocol.makeConnection(self)

    def signalProcess(self, signalID: str | int) -> None:
        if not self._process.alive:
            raise ProcessExitedAlready
        number = signalID if isinstance(signalID, int) else getattr(signal, f"SIG{signalID}")
        send_signal(self._process.machine, self.pid, number)

    def loseConnection(self) -> None:
        """Its input and output are files."""

    closeStdin = closeStdout = closeStderr = loseConnection

    def closeChildFD(self, descriptor: int) -> None:
        """Its input and output are files."""

    def writeToChild(self, childFD: int, data: bytes) -> None:
        """Nothing is read from it."""

    def _exited(self, status: int, by_signal: int | None) -> None:
        if status == 0 and by_signal is None:
            reason = Failure(ProcessDone(0))
        else:
            reason = Failure(ProcessTerminated(status, by_signal))
        self._process.kernel.after(EXIT_TIME, self._parent.call, self._tell, reason)

    def _tell(self, reason: Failure) -> None:
        self._protocol.processExited(reason)
        self._protocol.processEnded(reason)

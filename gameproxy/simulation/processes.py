"""Processes that a simulated process starts, asks about, and signals."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, cast

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

        The program is the first argument that is the name of one: what stands before it launches it, and where it has
        something to read waits for that. It ends when that ends without anything.

        :raises OSError: there is no such program.
        """
        named = [number for number, word in enumerate(args) if word in self.programs]
        if not named:
            raise OSError(f"none of these programs is there: {' '.join(args)}")
        name = args[named[0]]
        process = reactor.process.machine.start(name)
        process.kernel.write("spawn", process.name, reactor.process.name)
        least, most = START_TIME
        delay = least + stream(self._seed, "start", process.machine.name, process.pid).randrange(
            most - least
        )
        run = self.programs[name]
        child_reactor = SimReactor(process, self.spawn)
        arguments = args[named[0] :]
        program = partial(run, child_reactor, arguments, dict(env or {}))
        waits = "w" in cast(Mapping[int, object], options.get("childFDs", {})).values()
        child = _Child(reactor.process, protocol, process, program, waits)
        process.kernel.after(delay, process.call, child.launched)
        return child


class _Child:
    """A started process, as its parent has it.

    :param waits: whether its launcher waits for a word of its parent.
    """

    def __init__(
        self,
        parent: Process,
        protocol: Any,
        process: Process,
        program: Callable[[], object],
        waits: bool,
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._protocol = protocol
        self._parent = parent
        self._program = program
        self._waits = waits
        self._is_launched = False
        process.on_exit.append(self._exited)
        parent.on_exit.append(lambda *_: self._heard_nothing())
        protocol.makeConnection(self)

    def signalProcess(self, signalID: str | int) -> None:
        if not self._process.alive:
            raise ProcessExitedAlready
        number = signalID if isinstance(signalID, int) else getattr(signal, f"SIG{signalID}")
        send_signal(self._process.machine, self.pid, number)

    def loseConnection(self) -> None:
        """Its input and output are files."""

    closeStdin = closeStdout = closeStderr = loseConnection

    def launched(self) -> None:
        """Its launcher runs."""
        self._is_launched = True
        if not self._waits:
            self._program()

    def writeToChild(self, childFD: int, data: bytes) -> None:
        """The word for which its launcher waits."""
        self._waits = False
        if self._is_launched:
            self._process.kernel.after(0, self._process.call, self._program)

    def closeChildFD(self, descriptor: int) -> None:
        """No word comes any more."""
        self._heard_nothing()

    def _heard_nothing(self) -> None:
        if self._waits:
            self._waits = False
            self._process.kernel.after(0, self._process.call, self._process.end, 1)

    def _exited(self, status: int, by_signal: int | None) -> None:
        if status == 0 and by_signal is None:
            reason = Failure(ProcessDone(0))
        else:
            reason = Failure(ProcessTerminated(status, by_signal))
        self._process.kernel.after(EXIT_TIME, self._parent.call, self._tell, reason)

    def _tell(self, reason: Failure) -> None:
        self._protocol.processExited(reason)
        self._protocol.processEnded(reason)

"""Processes of this machine, told apart from later ones that got the same pid."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ProcessName:
    """A process, exactly.

    :param pid: its process id.
    :param started: when it was started, as ``/proc/PID/stat`` has it: clock ticks since boot.
    :param place: where that pid means something: the boot and the pid namespace.
    """

    pid: int
    started: str | None
    place: str


class Processes(Protocol):
    """What the farm asks about processes."""

    def me(self) -> ProcessName:
        """The process that asks."""
        ...

    def name(self, pid: int) -> ProcessName:
        """The process that has that pid now."""
        ...

    def is_gone(self, process: ProcessName) -> bool:
        """Whether it certainly has ended; of one in another place nothing is known."""
        ...

    def signal(self, process: ProcessName, number: int, group: bool = False) -> None:
        """Send a signal to it, or to its whole process group. Nothing happens when it has ended."""
        ...


class LinuxProcesses:
    """Processes as ``/proc`` shows them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        boot = _read(proc / "sys/kernel/random/boot_id") or "unknown"
        try:
            namespace = str((proc / "self/ns/pid").readlink())
        except OSError:
            namespace = "unknown"
        self._place = f"{boot.strip()} {namespace}"

    def me(self) -> ProcessName:
        return self.name(os.getpid())

    def name(self, pid: int) -> ProcessName:
        return ProcessName(pid, self._started(pid), self._place)

    def is_gone(self, process: ProcessName) -> bool:
        if process.place == self._place:
            return process.started is None or self._started(process.pid) != process.started
        # Another pid namespace hides a process; another boot has ended it.
        return process.place.split(" ")[0] != self._place.split(" ")[0]

    def signal(self, process: ProcessName, number: int, group: bool = False) -> None:
        try:
            handle = os.pidfd_open(process.pid)
        except OSError:
            return
        try:
            # The handle is of whatever has the pid now; if it is the right one it stays the right one.
            if process.started is None or self.name(process.pid) != process:
                return
            if group and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, number)
            else:
                signal.pidfd_send_signal(handle, number)
        except ProcessLookupError:
            return
        finally:
            os.close(handle)

    def _started(self, pid: int) -> str | None:
        """Field 22 of ``/proc/PID/stat`` (proc(5)); ``None`` of what has ended, a zombie too."""
        text = _read(self._proc / str(pid) / "stat")
        if text is None:
            return None
        # The second field, the name in parentheses, may hold anything.
        fields = text.rpartition(")")[2].split()
        return None if fields[0] in ("Z", "X") else fields[19]


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return None

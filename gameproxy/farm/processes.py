"""Processes of this machine, told apart from later ones that got the same pid."""

from __future__ import annotations

import errno
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_UNKNOWN: Final = "unknown"
_ENDED: Final = ("Z", "X")
"""The states of a process that has ended and was not waited for."""


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

    def signal(self, process: ProcessName, number: int) -> bool:
        """Send a signal to its process group, what is left of that too when it has ended itself; 0 only looks.

        :return: whether it reached anybody.
        """
        ...


class LinuxProcesses:
    """Processes as ``/proc`` shows them."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        boot = _read(proc / "sys/kernel/random/boot_id") or _UNKNOWN
        try:
            namespace = str((proc / "self/ns/pid").readlink())
        except OSError:
            namespace = _UNKNOWN
        self._place = f"{boot.strip()} {namespace}"

    def me(self) -> ProcessName:
        return self.name(os.getpid())

    def name(self, pid: int) -> ProcessName:
        return ProcessName(pid, self._stat(pid)[1], self._place)

    def is_gone(self, process: ProcessName) -> bool:
        if _UNKNOWN in (*process.place.split(" "), *self._place.split(" ")):
            return False
        if process.place != self._place:
            # Another pid namespace hides a process; another boot has ended it.
            return process.place.split(" ")[0] != self._place.split(" ")[0]
        state, started = self._stat(process.pid)
        if started is None:
            # It has ended, or /proc does not show it to everybody.
            return not _has_process(process.pid)
        return process.started is not None and (state in _ENDED or started != process.started)

    def signal(self, process: ProcessName, number: int) -> bool:
        if process.started is None or process.place != self._place:
            return False
        try:
            handle = os.pidfd_open(process.pid)
        except (OSError, OverflowError):
            # While a group has members no new process gets its number; so if nobody has it, the group is still its.
            return not _has_process(process.pid) and _signal_group(process.pid, number)
        try:
            # The handle is of whatever has the pid now; if it is the right one it stays the right one.
            if self.name(process.pid) != process:
                return False
            if os.getpgid(process.pid) == process.pid:
                return _signal_group(process.pid, number)
            signal.pidfd_send_signal(handle, number)
        except OSError:
            return False
        finally:
            os.close(handle)
        return True

    def _stat(self, pid: int) -> tuple[str, str] | tuple[None, None]:
        """Fields 3, state, and 22, start time, of ``/proc/PID/stat`` (proc(5)); ``None`` where it cannot be read."""
        text = _read(self._proc / str(pid) / "stat")
        if text is None:
            return None, None
        # The second field, the name in parentheses, may hold anything.
        fields = text.rpartition(")")[2].split()
        return fields[0], fields[19]


def _has_process(pid: int) -> bool:
    """Whether a process may have that pid."""
    try:
        os.close(os.pidfd_open(pid))
    except (OverflowError, TypeError):
        return False  # somebody edited it to what is no pid
    except OSError as error:
        return error.errno not in (errno.ESRCH, errno.EINVAL)
    return True


def _signal_group(group: int, number: int) -> bool:
    if group <= 1:
        return False
    try:
        os.killpg(group, number)
    except (OSError, OverflowError):
        return False
    return True


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return None

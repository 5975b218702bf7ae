"""Processor time of all that runs, to the nanosecond, and whose it was.

/proc/PID/task/TID/schedstat begins with the nanoseconds that a thread has been on a processor (Linux,
Documentation/scheduler/sched-stats.rst). Interrupts, those of packets too, are charged to whom they interrupt, unless
the kernel accounts for them by themselves (CONFIG_IRQ_TIME_ACCOUNTING).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WORKERS = ("kworker", "ksoftirqd")
"""Threads of the kernel that do what others have left them to do, packets too."""
KERNEL = "kernel"
FOREIGN = "foreign"


@dataclass(frozen=True)
class Sample:
    """What all threads have used so far.

    :param at: seconds, from some moment on.
    :param spent: nanoseconds of each thread.
    :param processes: the process of each thread.
    :param names: of the processes.
    """

    at: float
    spent: Mapping[int, int]
    processes: Mapping[int, int]
    names: Mapping[int, str]


def nanoseconds(schedstat: str) -> int:
    """The time on a processor that a line of /proc/PID/task/TID/schedstat tells.

    :raises ValueError: it is no such line.
    """
    on_processor, _waiting, _times = schedstat.split()
    return int(on_processor)


def sample(proc: Path = Path("/proc")) -> Sample:
    """Read it now. What ends meanwhile is left out."""
    at = time.monotonic()
    spent, processes, names = {}, {}, {}
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            name = (process / "comm").read_text()
            tasks = [
                (int(task.name), nanoseconds((task / "schedstat").read_text()))
                for task in (process / "task").iterdir()
            ]
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(process.name)
        names[pid] = name.strip()
        for thread, used in tasks:
            spent[thread] = used
            processes[thread] = pid
    return Sample(at, spent, processes, names)


def shares(before: Sample, after: Sample, roles: Mapping[int, str]) -> dict[str, float]:
    """Seconds of processor time between two samples, by who used them.

    Threads that have begun meanwhile count; of those that have ended nothing is known.

    :param roles: of the processes that have one. Of the others, the kernel's workers are ``kernel``, and all else is
        ``foreign``.
    """
    used = dict.fromkeys([*roles.values(), KERNEL, FOREIGN], 0.0)
    for thread, spent in after.spent.items():
        pid = after.processes[thread]
        other = KERNEL if after.names[pid].startswith(WORKERS) else FOREIGN
        used[roles.get(pid, other)] += (spent - before.spent.get(thread, 0)) / 1e9
    return used

"""What a proxy needs of the machine that it runs on, beside a reactor."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from twisted.python.threadpool import ThreadPool

from gameproxy.admission import ensure_descriptors
from gameproxy.farm import LinuxProcesses, Processes
from gameproxy.sites import Disturbs, never


@dataclass(frozen=True, slots=True)
class Host:
    """The machine, as far as a reactor does not show it. By itself it is the real one; a simulation gives another.

    :param processes: the processes on it.
    :param environment: what started game servers inherit.
    :param ensure_descriptors: called with the most sessions that there may be; raises
        :class:`~gameproxy.admission.TooFewDescriptors`.
    :param database_threads: where SQLite is called, in place of a thread of its own; the proxy starts and stops it.
    :param password_threads: where passwords are checked, in place of threads of their own; the same.
    :param disturbs: called with each site of ``gameproxy.sites`` that is come by; whether it is to be disturbed.
    """

    processes: Processes = field(default_factory=LinuxProcesses)
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    ensure_descriptors: Callable[[int], None] = ensure_descriptors
    database_threads: ThreadPool | None = None
    password_threads: ThreadPool | None = None
    disturbs: Disturbs = never

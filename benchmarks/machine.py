"""What a benchmark must know of the machine it runs on: its facts, processor time, memory, and programs it starts."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import IO

TICKS = os.sysconf("SC_CLK_TCK")
ROOT = Path(__file__).resolve().parent.parent


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return (done.stdout.splitlines() or [""])[0].strip()


def _filesystem(path: Path) -> str:
    """The type of the file system that ``path`` is on, from /proc/mounts."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    holding = [(len(point), kind) for point, kind in mounts if path.is_relative_to(point)]
    return max(holding)[1]


def facts(folder: Path) -> dict[str, object]:
    """The commit and the machine; ``folder`` is where the database will be."""
    processors = Path("/proc/cpuinfo").read_text().splitlines()
    models = [
        line.partition(":")[2].strip() for line in processors if line.startswith("model name")
    ]
    return {
        "commit": _first_line("git", "rev-parse", "HEAD"),
        "changed": bool(_first_line("git", "status", "--porcelain", "--untracked-files=no")),
        "processor": models[0] if models else platform.machine(),
        "cores": sorted(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "twisted": version("twisted"),
        "sqlite": sqlite3.sqlite_version,
        "haproxy": _first_line("haproxy", "-v"),
        "filesystem": _filesystem(folder),
        "load_before": os.getloadavg()[0],
    }


def processor_seconds(pid: int) -> float:
    """Processor time of a process with all its threads so far, user and system, from /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def own_seconds(pids: Sequence[int]) -> float:
    """Processor time of this process, its ended children and the running ones in ``pids``."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(usage.ru_utime + usage.ru_stime for usage in usages)
    return ended + sum(processor_seconds(pid) for pid in pids)


def machine_seconds() -> tuple[float, float]:
    """Time that all cores were busy, and that the host took away (steal), in seconds."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _wait, interrupt, soft, steal = (int(x) / TICKS for x in fields[:8])
    return user + nice + system + interrupt + soft, steal


def resident_bytes(pid: int) -> int:
    """VmRSS of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(pid)


def pin(pid: int, cores: str) -> None:
    """Let a process, all its threads, run on these cores (``0`` or ``0,1``) only."""
    allowed = {int(core) for core in cores.split(",")}
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), allowed)


def raise_descriptors(needed: int) -> None:
    """As many descriptors as this process may have, for itself and all that it starts.

    :raises SystemExit: there are too few.
    """
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if files < needed:
        raise SystemExit(f"the descriptor limit is {files}; {needed} are needed")
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def results_file(kind: str) -> Path:
    """Where the results of a run that ends now are written; its suffix is to be replaced by others for more files."""
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    return results / f"{kind}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"


def compile_c(source: Path, folder: Path, *libraries: str) -> str:
    """Compile one C file into ``folder``; returns the program's path."""
    program = folder / source.stem
    compiler = shutil.which("cc") or "gcc"
    subprocess.run(
        [compiler, "-O2", "-Wall", "-o", str(program), str(source), *libraries], check=True
    )
    return str(program)


@contextmanager
def running(
    command: Sequence[str], cores: str, log: IO[str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A program pinned to cores (``0`` or ``0,1``), with pipes for input and output (or a log).

    It is ended by its pid on the way out.

    It is in a session of its own, so that Ctrl-C reaches only the benchmark, and gets SIGTERM should the
    benchmark be killed. The end of its input asks it to end, then SIGTERM, then SIGKILL.
    """
    pinned = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", cores, *command]
    process = subprocess.Popen(
        pinned,
        stdin=subprocess.PIPE,
        stdout=log or subprocess.PIPE,
        stderr=log,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()

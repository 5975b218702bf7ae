"""What do those who play notice of a flood? See benchmarks/README.md.

Prints a Markdown table and writes what was measured, window by window, to benchmarks/results/.
Exit status: 0 when every frame came back as it was sent and no session was lost (whatever the figures), else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import machine
from programs import CONFIGURATION, GAME, SERVER, Programs, Proxy
from relays import PYTHON, Load

FLOOD = machine.ROOT / "tests" / "long" / "flood.py"
BODY, FRAMES_A_SECOND = 64, 10
CONNECTIONS_A_SECOND = 500
WARM_UP, SPARE = 1.0, 2.0
"""Seconds of a flood before a window, and after it."""
CALM = 7.0
"""Seconds after a flood until nothing of it is left at the proxy: AUTH has five."""
MOST_SESSIONS = 4000
WITHIN, BEYOND = 65_000, 1
"""From how many networks a flood comes: of each one connection in all the time, or all of one."""
LIMITS = """
[limits.connections_per_second]
mode = "enforce"
rate = 2
burst = {burst}
"""
"""The load opens its sessions at once, from one network."""


@dataclass(frozen=True)
class Kind:
    """What happens in a window.

    :param flood: what the flood does, a word of it; empty: there is none.
    """

    name: str
    flood: str = ""
    networks: int = 0


KINDS = (
    Kind("no flood"),
    *(
        Kind(f"{name}, {form} limits", word, networks)
        for name, word in (
            ("junk", "junk"),
            ("slow AUTH", "slow_auth"),
            ("connect and close", "connect_and_close"),
        )
        for form, networks in (("within", WITHIN), ("beyond", BEYOND))
    ),
)


class Bench:
    """Sessions that play through the proxy, others that play past it, and a flood now and then."""

    def __init__(self, programs: Programs, stack: ExitStack, folder: Path, sessions: int) -> None:
        self._programs = programs
        self._stack = stack
        self._sessions = sessions
        self._load = machine.compile_c(Path(__file__).with_name("relay_load.c"), folder)
        ports = {mode: programs.start_game_server(mode) for mode in ("native", "bare")}
        self.proxy = programs.run_proxy(
            "flooded",
            "native",
            [PYTHON, "-m", "twisted", "gameproxy", "--config", "{configuration}"],
            CONFIGURATION + LIMITS.format(burst=sessions + 10),
            farm="flooded",
            server=SERVER,
            game=GAME,
            server_port=ports["native"],
            max_sessions=MOST_SESSIONS,
            relay="epoll",
        )
        past = Proxy("none", "bare", 0, ports["bare"], folder, folder)
        self._loads = {"proxied": self._play(self.proxy), "direct": self._play(past)}

    def _play(self, proxy: Proxy) -> Load:
        words = [proxy.mode, str(proxy.port), str(self._sessions), str(BODY), "paced"]
        lines = self._programs.auth_lines(proxy, self._sessions)
        command = [self._load, *words, str(FRAMES_A_SECOND), *lines]
        load = Load(self._stack, command, self._programs.load_core)
        if load.opened["opened"] < self._sessions:
            raise SystemExit(f"{proxy.name}: {load.opened}")
        load.go()
        self._programs.pids.append(load.pid)
        return load

    def measure(self, kind: Kind, seconds: float) -> dict[str, Any]:
        """One window: both ways at the same time."""
        lines = len(self._log())
        with self._flood(kind, WARM_UP + seconds + SPARE) as flood:
            time.sleep(WARM_UP)
            for load in self._loads.values():
                load.begin()
            busy, own = machine.machine_seconds(), machine.own_seconds(self._pids(flood))
            spent = machine.processor_seconds(self.proxy.pid)
            time.sleep(seconds)
            measured = {name: load.end() for name, load in self._loads.items()}
            spent = machine.processor_seconds(self.proxy.pid) - spent
            own = machine.own_seconds(self._pids(flood)) - own
            now = machine.machine_seconds()
            made = self._made(flood)
        if kind.flood:
            time.sleep(CALM)
        return {
            "kind": kind.name,
            "trips_a_second": measured["proxied"]["trips"] / measured["proxied"]["seconds"],
            **{
                f"{which}_{figure}": measured[which][figure]
                for which in measured
                for figure in ("p50_us", "p99_us", "faults")
            },
            "proxy_cores": spent / seconds,
            "proxy_mib": machine.resident_bytes(self.proxy.pid) / 2**20,
            "log_lines": len(self._log()) - lines,
            "made": made,
            "foreign": max(0.0, now[0] - busy[0] - own) / seconds,
            "steal": (now[1] - busy[1]) / seconds,
        }

    def stop(self) -> int:
        """Let all leave; how many faults there were."""
        return sum(load.stop()["faults"] for load in self._loads.values())

    def _log(self) -> Sequence[str]:
        return (self.proxy.folder / "log").read_text(errors="replace").splitlines()

    def _pids(self, flood: subprocess.Popen[str] | None) -> list[int]:
        return [*self._programs.pids, *([flood.pid] if flood else [])]

    @contextmanager
    def _flood(self, kind: Kind, seconds: float) -> Iterator[subprocess.Popen[str] | None]:
        """A flood of so many seconds, which has begun."""
        if not kind.flood:
            yield None
            return
        numbers = (self.proxy.port, round(seconds), round(CONNECTIONS_A_SECOND * seconds))
        words = [kind.flood, *map(str, numbers), str(kind.networks)]
        command = [PYTHON, "-I", "-S", str(FLOOD), *words]
        with machine.running(command, self._programs.load_core) as flood:
            assert flood.stdout
            flood.stdout.readline()
            yield flood

    def _made(self, flood: subprocess.Popen[str] | None) -> int:
        """How many connections a flood has made, when it is over."""
        if flood is None:
            return 0
        assert flood.stdout
        made: int = json.loads(flood.stdout.readline())["made"]
        return made


def run(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all windows: in each round all kinds, in shuffled order."""
    shuffled = random.Random(1)
    windows = []
    with ExitStack() as stack:
        programs = Programs(folder, stack, "")
        bench = Bench(programs, stack, folder, options.sessions)
        for number in range(options.rounds):
            for kind in shuffled.sample(KINDS, len(KINDS)):
                window = bench.measure(kind, options.seconds)
                windows.append({"round": number, **window})
                print(
                    f"{kind.name}: p99 {window['proxied_p99_us'] / 1000:.2f} ms, past the proxy "
                    f"{window['direct_p99_us'] / 1000:.2f}; foreign load {window['foreign']:.2f} of a core",
                    file=sys.stderr,
                )
        faults = bench.stop() + programs.end_game_servers()
    return {
        "windows": windows,
        "faults": faults,
        "foreign": median(window["foreign"] for window in windows),
    }


def report(result: dict[str, Any], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    facts = result["machine"]
    lines = [
        "| medians | added p50, ms | added p99, ms | lowest to highest | frames in/s | proxy, cores | memory, MiB "
        "| log lines/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        of_kind = [window for window in result["windows"] if window["kind"] == kind.name]
        added = {
            figure: sorted(
                (window[f"proxied_{figure}"] - window[f"direct_{figure}"]) / 1000
                for window in of_kind
            )
            for figure in ("p50_us", "p99_us")
        }
        trips, cores, mib, lines_logged = (
            median(window[name] for window in of_kind)
            for name in ("trips_a_second", "proxy_cores", "proxy_mib", "log_lines")
        )
        low, high = added["p99_us"][0], added["p99_us"][-1]
        lines.append(
            f"| {kind.name} | {median(added['p50_us']):.2f} | {median(added['p99_us']):.2f} | {low:.2f} to {high:.2f} "
            f"| {trips:.0f} | {cores:.2f} | {mib:.0f} "
            f"| {lines_logged / (WARM_UP + options.seconds + SPARE):.1f} |"
        )
    lines += [
        "",
        f"{options.rounds} windows of {options.seconds:g} s of each kind in shuffled order; "
        f"{options.sessions} sessions all the time, as many past the proxy; "
        f"floods of {CONNECTIONS_A_SECOND} connections a second. "
        f"Faults: {result['faults']}. Median foreign load {result['foreign']:.2f} of a core. "
        f"{facts['processor']}, {len(facts['cores'])} cores, Linux {facts['kernel']}, "
        f"Python {facts['python']}, Twisted {facts['twisted']}; "
        f"commit {facts['commit'][:12]}{' with changes' if facts['changed'] else ''}.",
    ]
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=4, help="windows of each kind")
    parser.add_argument("--seconds", type=float, default=15.0, help="length of a window")
    parser.add_argument("--sessions", type=int, default=500, help="sessions that play")
    parser.add_argument(
        "--folder", default="/var/tmp", help="on a disk; the database goes below it"
    )
    return parser.parse_args(arguments)


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine.raise_descriptors(2 * MOST_SESSIONS + 1000)
    with tempfile.TemporaryDirectory(prefix="gameproxy-bench-", dir=options.folder) as name:
        folder = Path(name)
        facts = machine.facts(folder)
        result = {"machine": facts, "options": vars(options), **run(folder, options)}
    machine.results_file("floods").write_text(json.dumps(result, indent=1) + os.linesep)
    print(report(result, options))
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())

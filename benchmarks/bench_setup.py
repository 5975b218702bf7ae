"""How fast are full session set-ups, and how much memory does an idle session take? See benchmarks/README.md.

Prints Markdown tables and writes what was measured, window by window, to benchmarks/results/.
Exit status: 0 when every session went as it should (whatever the figures), else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import machine
from programs import Programs, Proxy

RATE_TARGET = 800.0  # set-ups a second, the proxy on one core
MEMORY_TARGET = 10.0  # KiB of resident memory per idle session
LOADED_TARGET = 0.8  # the rate with many sessions open, of that with few
NEAR = 0.1  # so close to a target, one run does not decide
TICKETS_PER_SECOND = 4000  # more than a window can use; one that runs out is an error
WARM_UP = 0.5  # setup_load's own, in seconds
CALM = 2.0  # seconds without load before memory is read


class Windows:
    """Measures windows and keeps what came out."""

    def __init__(self, programs: Programs, seconds: float) -> None:
        self._programs = programs
        self._seconds = seconds
        self.all: list[dict[str, Any]] = []

    def measure(self, name: str, proxy: Proxy, in_flight: int) -> None:
        """One window of set-ups, ``in_flight`` at a time."""
        tickets = int((self._seconds + WARM_UP) * TICKETS_PER_SECOND)
        command = self._programs.load(proxy, in_flight, "run", self._seconds, tickets)
        began = time.monotonic()
        proxy_before = machine.processor_seconds(proxy.pid)
        own_before = machine.own_seconds(self._programs.pids)
        busy_before, steal_before = machine.machine_seconds()
        with machine.running(command, self._programs.load_core) as load:
            output, _ = load.communicate(timeout=self._seconds + 30.0)
        time.sleep(0.2)  # what the last sessions leave to do belongs to them
        busy, steal = machine.machine_seconds()
        own = machine.own_seconds(self._programs.pids) - own_before
        spent = machine.processor_seconds(proxy.pid) - proxy_before
        elapsed = time.monotonic() - began
        result = json.loads(output)
        result.update(
            window=name,
            proxy=proxy.name,
            proxy_us=1e6 * spent / max(result["total"], 1),
            foreign=max(0.0, busy - busy_before - own) / elapsed,
            steal=(steal - steal_before) / elapsed,
        )
        self.all.append(result)
        print(
            f"{name}: {result['rate']:.0f}/s, {result['failures']['all']} failed, "
            f"foreign load {result['foreign']:.2f} of a core",
            file=sys.stderr,
        )

    def values(self, name: str, field: str) -> list[float]:
        return [w[field] for w in self.all if w["window"] == name]

    def total(self, proxy: Proxy) -> int:
        """How many sessions came and went at a proxy in all its windows."""
        return sum(w["total"] for w in self.all if w["proxy"] == proxy.name)


def idle_memory(programs: Programs, proxy: Proxy, few: int, many: int) -> dict[str, float]:
    """Open more idle sessions, from ``few`` to ``many``; returns the resident memory before and after."""
    time.sleep(CALM)
    before = machine.resident_bytes(proxy.pid)
    programs.hold(proxy, many - few)
    proxy.settle(many)
    time.sleep(CALM)
    after = machine.resident_bytes(proxy.pid)
    sessions = many - few
    return {
        "before_mib": before / 2**20,
        "after_mib": after / 2**20,
        "sessions": sessions,
        "kib_a_session": (after - before) / 1024 / sessions,
    }


def run(programs: Programs, options: argparse.Namespace) -> dict[str, Any]:
    """Start everything, measure everything; returns what is to be written."""
    most = options.many + 1000
    native_port = programs.start_game_server("native")
    bare_port = programs.start_game_server("bare")
    haproxy = programs.start_proxy("haproxy", "bare", bare_port, most)
    few = programs.start_proxy("few", "native", native_port, most)
    many = programs.start_proxy("many", "native", native_port, most)
    held = {few: options.few, many: options.many}
    for proxy in held:
        programs.hold(proxy, options.few)
        proxy.settle(options.few)
    memory = idle_memory(programs, many, options.few, options.many)

    kinds = [
        ("HAProxy, bare TCP", haproxy, options.in_flight),
        (f"gameproxy, {options.few} open", few, options.in_flight),
        (f"gameproxy, {options.many} open", many, options.in_flight),
        ("gameproxy, one at a time", few, 1),
    ]
    windows = Windows(programs, options.seconds)
    shuffled = random.Random(1)
    for _ in range(options.rounds):
        for name, proxy, in_flight in shuffled.sample(kinds, len(kinds)):
            windows.measure(name, proxy, in_flight)
            if proxy in held:
                proxy.settle(held[proxy])

    names = [name for name, _, _ in kinds]
    fields = ("rate", "p50_us", "p99_us", "proxy_us")
    medians = {
        name: {field: statistics.median(windows.values(name, field)) for field in fields}
        for name in names
    }
    bare, with_few, with_many, _ = (medians[name]["rate"] for name in names)
    # The database must have counted exactly the sessions that the load has seen through.
    uncounted = [proxy.stats()[1] - held[proxy] - windows.total(proxy) for proxy in held]
    return {
        "medians": medians,
        "rates": {name: sorted(windows.values(name, "rate")) for name in names},
        "memory": memory,
        "of_haproxy": with_few / bare,
        "of_few": with_many / with_few,
        "faults": sum(w["failures"]["all"] + w["exhausted"] for w in windows.all)
        + sum(abs(count) for count in uncounted),
        "foreign": statistics.median(w["foreign"] for w in windows.all),
        "windows": windows.all,
    }


def verdict(share: float) -> str:
    """``share``: 1 is the target, more is better."""
    if abs(share - 1) < NEAR:
        return "within 10 % of the target: not decided by one run"
    return "met" if share > 1 else "missed"


def report(result: dict[str, Any], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    facts, memory, medians = result["machine"], result["memory"], result["medians"]
    lines = [
        "| medians | set-ups/s | lowest to highest | connect to echo p50, ms | p99, ms | proxy CPU, us |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in medians.items():
        low, high = result["rates"][name][0], result["rates"][name][-1]
        lines.append(
            f"| {name} | {row['rate']:.0f} | {low:.0f} to {high:.0f} | {row['p50_us'] / 1000:.1f} "
            f"| {row['p99_us'] / 1000:.1f} | {row['proxy_us']:.0f} |"
        )
    rate = medians[f"gameproxy, {options.few} open"]["rate"]
    kib = memory["kib_a_session"]
    lines += [
        "",
        "| figure | measured | target | |",
        "|---|---|---|---|",
        f"| full set-ups | {rate:.0f}/s | {RATE_TARGET:.0f}/s or more | {verdict(rate / RATE_TARGET)} |",
        f"| of HAProxy's bare set-ups | {result['of_haproxy']:.3f} | | |",
        f"| resident memory per idle session | {kib:.1f} KiB | {MEMORY_TARGET:.0f} KiB or less "
        f"| {verdict(MEMORY_TARGET / kib)} |",
        f"| set-ups with {options.many} open, of those with {options.few} | {result['of_few']:.2f} "
        f"| {LOADED_TARGET} or more | {verdict(result['of_few'] / LOADED_TARGET)} |",
        "",
        f"{options.rounds} windows of {options.seconds:g} s of each kind, shuffled; {options.in_flight} in flight; "
        f"resident {memory['before_mib']:.1f} MiB before and {memory['after_mib']:.1f} MiB after "
        f"{memory['sessions']} idle sessions. Proxies on core {result['layout']['proxies']}, load and game servers on "
        f"core {result['layout']['load']}. Foreign load (median): {result['foreign']:.2f} of a core. "
        f"Faults: {result['faults']}.",
        f"{facts['processor']}, {len(facts['cores'])} cores, Linux {facts['kernel']}, Python {facts['python']}, "
        f"Twisted {facts['twisted']}, SQLite {facts['sqlite']} on {facts['filesystem']}, {facts['haproxy']}; "
        f"commit {facts['commit'][:12]}{' with changes' if facts['changed'] else ''}.",
    ]
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="windows of each kind")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a window")
    parser.add_argument("--in-flight", type=int, default=50, help="set-ups under way at a time")
    parser.add_argument("--few", type=int, default=50, help="idle sessions of the one proxy")
    parser.add_argument("--many", type=int, default=5000, help="idle sessions of the other")
    parser.add_argument(
        "--proxy",
        default=f"{Path(sys.executable).parent / 'twist'} gameproxy --config",
        help="the command that runs gameproxy, up to the configuration's path",
    )
    parser.add_argument("--folder", default="/var/tmp", help="on a disk; the databases go below it")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine.raise_descriptors(2 * (options.many + 1000) + 200)
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(
                tempfile.TemporaryDirectory(prefix="gameproxy-bench-", dir=options.folder)
            )
        )
        facts = machine.facts(folder)
        programs = Programs(folder, stack, options.proxy)
        result = run(programs, options)
    result["machine"] = facts
    result["layout"] = {"proxies": programs.proxy_core, "load": programs.load_core}
    result["options"] = vars(options)
    print(report(result, options))
    machine.results_file("setup").write_text(json.dumps(result, indent=1) + os.linesep)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())

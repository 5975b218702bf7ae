"""What does relaying cost, beside other proxies and beside none? See benchmarks/README.md.

Prints Markdown tables; writes them, what was measured window by window, and a plot to benchmarks/results/.
Exit status: 0 when every frame came back as it was sent (whatever the figures), else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import machine
import processor_time
import relay_plot
import relay_report
from programs import HOLD_IN_FLIGHT, Programs
from relay_figures import PARTS
from relays import (
    GAMEPROXY,
    KINDS,
    NO_PROXY,
    WORKLOADS,
    Kind,
    Load,
    Relays,
    Running,
    Workload,
)

WARM_UP = 0.15  # seconds between the first frame and the window
CALM = 1.0  # seconds without work before memory is read
FEW = 50  # sessions that are open when memory is read first


def measure(relays: Relays, running: Running, workload: Workload, seconds: float) -> dict[str, Any]:
    """One window of one relay at one work, in sessions of its own.

    :raises SystemExit: the sessions could not be opened, or gameproxy does not move them as it should.
    """
    kind = running.kind
    counted = running.counted()
    with ExitStack() as stack:
        cores = relays.place(running, workload)
        load = Load(stack, relays.command(running, workload), cores)
        if load.opened["opened"] < workload.sessions:
            log = running.proxy.log() if running.proxy.pid else ""
            raise SystemExit(f"{kind.name}, {workload.name}: {load.opened}\n{log}")
        if kind.relay:
            running.wait_for(workload.sessions)
        load.go()
        time.sleep(WARM_UP)
        load.begin()
        steal_before = machine.machine_seconds()[1]
        before = processor_time.sample()
        time.sleep(seconds)
        measured = load.end()
        after = processor_time.sample()
        steal = machine.machine_seconds()[1] - steal_before
        moved = running.by_relay() if kind.relay else {}
        whole = load.stop()
    if kind.relay and whole["faults"]:
        running.wait_for(0)  # the others are over; how many that were, nobody knows
    elif kind.relay:
        if not workload.is_bulk and moved[kind.relay] < workload.sessions:
            raise SystemExit(f"{kind.name}, {workload.name}: {moved}")
        running.check_count(counted, workload.sessions, whole["sent"], whole["back"])
    elapsed = after.at - before.at
    used = processor_time.shares(before, after, relays.roles(running, load.pid, os.getpid()))
    trips = max(measured["trips"], 1)
    return {
        "workload": workload.name,
        "kind": kind.name,
        "rate": measured["trips"] / measured["seconds"],
        "p50_us": measured["p50_us"],
        "p99_us": measured["p99_us"],
        "cpu_us": {part: 1e6 * used.get(part, 0.0) / trips for part in PARTS},
        "cores": {name: spent / elapsed for name, spent in used.items()},
        "foreign": used[processor_time.FOREIGN] / elapsed,
        "steal": steal / elapsed,
        "seconds": measured["seconds"],
        "trips": measured["trips"],
        "sent": whole["sent"],
        "back": whole["back"],
        "faults": whole["faults"],
        "elsewhere": workload.sessions - moved[kind.relay] if moved else 0,
    }


def measure_all(
    relays: Relays, kinds: Sequence[Kind], options: argparse.Namespace
) -> list[dict[str, Any]]:
    """All windows: in each round all works, and at each work all relays, in shuffled order."""
    everything = [relays.start(kind) for kind in kinds]
    shuffled = random.Random(1)
    windows = []
    for number in range(options.rounds):
        for workload in shuffled.sample(WORKLOADS, len(WORKLOADS)):
            for running in shuffled.sample(everything, len(everything)):
                window = measure(relays, running, workload, options.seconds)
                windows.append({"round": number, **window})
                print(
                    f"{workload.name}; {running.kind.name}: {window['rate']:.0f}/s, "
                    f"{window['faults']} faults, foreign load {window['foreign']:.2f} of a core",
                    file=sys.stderr,
                )
    return windows


def resident_memory(programs: Programs, running: Running, many: int) -> dict[str, float]:
    """What ``many`` idle sessions that relay take of a relay's memory, which has had none before."""
    proxy, resident = running.proxy, []
    with ExitStack() as stack:
        for sessions, total in ((FEW, FEW), (many - FEW, many)):
            command = programs.load(proxy, HOLD_IN_FLIGHT, "hold", sessions, sessions)
            holder = stack.enter_context(machine.running(command, programs.load_core))
            assert holder.stdout
            opened = json.loads(holder.stdout.readline())
            if opened["held"] != sessions:
                raise SystemExit(f"{running.kind.name}: {opened}\n{proxy.log()}")
            if running.kind.relay:
                running.wait_for(total)
            time.sleep(CALM)
            resident.append(machine.resident_bytes(proxy.pid))
    before, after = resident
    return {
        "before_mib": before / 2**20,
        "after_mib": after / 2**20,
        "sessions": many - FEW,
        "kib_a_session": (after - before) / 1024 / (many - FEW),
    }


def run(folder: Path, kinds: Sequence[Kind], options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything; returns what is to be written."""
    faults = 0
    memory = {}
    with ExitStack() as stack:
        programs = Programs(folder, stack, GAMEPROXY, apart=False)
        windows = measure_all(Relays(programs, folder), kinds, options)
        faults += programs.end_game_servers()
    # Others of the same, which have not relayed anything yet; one at a time is busy.
    folder = folder / "memory"
    folder.mkdir()
    with ExitStack() as stack:
        programs = Programs(folder, stack, GAMEPROXY, apart=False)
        relays = Relays(programs, folder)
        for kind in kinds:
            if kind is not NO_PROXY:
                memory[kind.name] = resident_memory(programs, relays.start(kind), options.idle)
                print(f"{kind.name}: {memory[kind.name]}", file=sys.stderr)
        faults += programs.end_game_servers()
    return {
        "windows": windows,
        "memory": memory,
        "faults": faults + sum(window["faults"] for window in windows),
        "foreign": median(window["foreign"] for window in windows),
        "foreign_most": max(window["foreign"] for window in windows),
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=9, help="windows of each relay at each work")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a window")
    parser.add_argument("--idle", type=int, default=5000, help="idle sessions for the memory")
    parser.add_argument("--folder", default="/var/tmp", help="on a disk; the databases go below it")
    return parser.parse_args(arguments)


def main() -> int:
    options = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    machine.raise_descriptors(2 * options.idle + 1000)
    left_out = {kind.name: reason for kind in KINDS if (reason := kind.missing())}
    kinds = [kind for kind in KINDS if kind.name not in left_out]
    for name, reason in left_out.items():
        print(f"left out: {name}: {reason}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="gameproxy-bench-", dir=options.folder) as name:
        folder = Path(name)
        facts = machine.facts(folder)
        result = {
            "machine": facts,
            "options": vars(options),
            "left_out": left_out,
            "works": [workload.name for workload in WORKLOADS],
            **run(folder, kinds, options),
        }
    file = machine.results_file("relay")
    file.write_text(json.dumps(result, indent=1) + os.linesep)
    report = relay_report.report(result)
    file.with_suffix(".md").write_text(report + os.linesep)
    relay_plot.draw(result, file.with_suffix(".svg"))
    print(report)
    return 1 if result["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())

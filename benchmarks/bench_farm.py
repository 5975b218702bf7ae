"""What do two proxies with one database do together, and what does a slot cost in a large farm?

Set-ups a second: two proxies of one farm, in turns with one proxy alone, whose database is its own. The load, the game
server and the proxies may run on all cores: with two cores, everything shares them.

Selection: taking a slot and giving it back, each in a transaction of its own, without network, proxy or threads, on a
database on disk with 10 to 10,000 game servers.

Prints Markdown and writes all windows to benchmarks/results/.
Exit status: 0 when every session went as it should (whatever the figures), else 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from statistics import median
from typing import Any

import machine
from bench_setup import TICKETS_PER_SECOND, WARM_UP, verdict
from programs import GAME, Programs, Proxy

from gameproxy.farm import LinuxProcesses, registry
from gameproxy.farm.bans import Bans
from gameproxy.farm.selection import StrategySelector
from gameproxy.farm.slots import SlotTable
from gameproxy.farm.upgrades import upgrade
from gameproxy.interfaces import Identity, Peer, SlotRequest
from gameproxy.reasons import CloseReason, Refusal

RATE_TARGET = 1500.0  # set-ups a second, two proxies together
FLAT_TARGET = 1.5  # the cost with the most game servers, of that with the fewest
STRATEGIES = ("packed", "least_connections", "random")
ALONE, TOGETHER = "one proxy alone", "two proxies, one database"
NOTHING_LEFT = Refusal(CloseReason.NO_SERVER)


def measure(
    programs: Programs, name: str, proxies: Sequence[Proxy], options: argparse.Namespace
) -> dict[str, Any]:
    """One window of set-ups, ``options.in_flight`` at a time at each of the proxies."""
    tickets = int((options.seconds + WARM_UP) * TICKETS_PER_SECOND)
    commands = [
        programs.load(proxy, options.in_flight, "run", options.seconds, tickets)
        for proxy in proxies
    ]
    began = time.monotonic()
    proxies_before = sum(machine.processor_seconds(proxy.pid) for proxy in proxies)
    own_before = machine.own_seconds(programs.pids)
    busy_before, steal_before = machine.machine_seconds()
    with ExitStack() as stack:
        loads = [
            stack.enter_context(machine.running(command, programs.load_core))
            for command in commands
        ]
        results = [
            json.loads(load.communicate(timeout=options.seconds + 30.0)[0]) for load in loads
        ]
    time.sleep(0.2)  # what the last sessions leave to do belongs to them
    busy, steal = machine.machine_seconds()
    own = machine.own_seconds(programs.pids) - own_before
    spent = sum(machine.processor_seconds(proxy.pid) for proxy in proxies) - proxies_before
    elapsed = time.monotonic() - began
    total = sum(result["total"] for result in results)
    window = {
        "window": name,
        "rate": sum(result["rate"] for result in results),
        "rates": [result["rate"] for result in results],
        "p50_us": median(result["p50_us"] for result in results),
        "p99_us": max(result["p99_us"] for result in results),
        "proxy_us": 1e6 * spent / max(total, 1),
        "all_us": 1e6 * own / max(total, 1),
        "total": total,
        "faults": sum(result["failures"]["all"] + result["exhausted"] for result in results),
        "foreign": max(0.0, busy - busy_before - own) / elapsed,
        "steal": (steal - steal_before) / elapsed,
        "loads": results,
    }
    print(
        f"{name}: {window['rate']:.0f}/s, {window['faults']} failed, "
        f"foreign load {window['foreign']:.2f} of a core",
        file=sys.stderr,
    )
    return window


def measure_setups(programs: Programs, options: argparse.Namespace) -> dict[str, Any]:
    """Windows of both kinds in shuffled order."""
    port = programs.start_game_server("native")
    alone = programs.start_proxy("alone", "native", port, 1000)
    first = programs.start_proxy("first", "native", port, 1000)
    second = programs.start_proxy("second", "native", port, 1000, farm="first")
    kinds = [(ALONE, [alone]), (TOGETHER, [first, second])]
    windows = []
    shuffled = random.Random(1)
    for _ in range(options.rounds):
        for name, proxies in shuffled.sample(kinds, len(kinds)):
            windows.append(measure(programs, name, proxies, options))
            proxies[0].settle(0)
    # The databases must have counted exactly the sessions that the loads have seen through.
    uncounted = [
        proxies[0].stats()[1] - sum(w["total"] for w in windows if w["window"] == name)
        for name, proxies in kinds
    ]
    fields = ("rate", "p50_us", "p99_us", "proxy_us", "all_us")
    return {
        "medians": {
            name: {f: median(w[f] for w in windows if w["window"] == name) for f in fields}
            for name, _ in kinds
        },
        "rates": {
            name: sorted(w["rate"] for w in windows if w["window"] == name) for name, _ in kinds
        },
        "faults": sum(w["faults"] for w in windows) + sum(abs(count) for count in uncounted),
        "foreign": median(w["foreign"] for w in windows),
        "windows": windows,
    }


def make_farm(path: Path, servers: int) -> sqlite3.Connection:
    """A database with so many game servers, from empty ones to full ones, and one proxy."""
    connection = sqlite3.connect(path, isolation_level=None)
    # As the proxy opens it.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    cursor = connection.cursor()
    cursor.execute("BEGIN IMMEDIATE")
    upgrade(cursor)
    registry.register_proxy(cursor, "bench", LinuxProcesses(), time.time())
    cursor.executemany(
        "INSERT INTO game_servers (id, game, state, host, port, capacity) "
        "VALUES (?, ?, 'ready', '127.0.0.1', 5000, 10)",
        ((f"{GAME}-{number:05}", GAME) for number in range(servers)),
    )
    # A new row starts from what the slots say.
    cursor.execute("UPDATE game_servers SET connections = rowid % 11")
    cursor.execute("COMMIT")
    return connection


def time_slot(connection: sqlite3.Connection, table: SlotTable, number: int) -> float:
    """Seconds in which a session takes a slot and gives it back."""
    session, now = f"s{number}", time.time()
    request = SlotRequest(
        session, Identity(f"player-{number}", "ticket"), GAME, Peer("127.0.0.1", 4000, False)
    )
    cursor = connection.cursor()
    began = time.perf_counter()
    cursor.execute("BEGIN IMMEDIATE")
    outlook = table.take(cursor, request, (), NOTHING_LEFT, now)
    cursor.execute("COMMIT")
    cursor.execute("BEGIN IMMEDIATE")
    table.release(cursor, session)
    cursor.execute("COMMIT")
    seconds = time.perf_counter() - began
    if session not in outlook.places:
        raise SystemExit(f"no slot for {session}")
    return seconds


def measure_selection(folder: Path, options: argparse.Namespace) -> dict[str, dict[int, float]]:
    """Median microseconds by strategy and number of game servers."""
    with ExitStack() as stack:
        farms = {
            size: stack.enter_context(closing(make_farm(folder / f"farm-{size}.db", size)))
            for size in options.servers
        }
        tables = {
            strategy: SlotTable(
                proxy="bench",
                games={},
                duplicates="replace",
                queue_size=100,
                max_load=1.0,
                selector=StrategySelector(strategy, 1.0, os.urandom),
                bans=Bans(),
                entropy=os.urandom,
            )
            for strategy in STRATEGIES
        }
        cases = [(strategy, size) for strategy in STRATEGIES for size in options.servers]
        times: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
        shuffled = random.Random(1)
        number = 0
        for _ in range(10):
            for strategy, size in shuffled.sample(cases, len(cases)):
                for _ in range(max(1, options.slots // 10)):
                    number += 1
                    times[strategy, size].append(time_slot(farms[size], tables[strategy], number))
    return {
        strategy: {size: 1e6 * median(times[strategy, size]) for size in options.servers}
        for strategy in STRATEGIES
    }


def report(result: dict[str, Any], options: argparse.Namespace) -> str:
    """The result as Markdown."""
    facts, setups, selection = result["machine"], result["setups"], result["selection"]
    lines = [
        "| medians | set-ups/s in sum | lowest to highest | connect to echo p50, ms | p99, ms "
        "| proxies' CPU a session, us | all CPU a session, us |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in setups["medians"].items():
        rates = setups["rates"][name]
        lines.append(
            f"| {name} | {row['rate']:.0f} | {rates[0]:.0f} to {rates[-1]:.0f} "
            f"| {row['p50_us'] / 1000:.1f} | {row['p99_us'] / 1000:.1f} | {row['proxy_us']:.0f} "
            f"| {row['all_us']:.0f} |"
        )
    together, alone = (setups["medians"][name]["rate"] for name in (TOGETHER, ALONE))
    sizes = options.servers
    lines += [
        "",
        "| acquire and release, median us | " + " | ".join(f"{n:,} servers" for n in sizes) + " |",
        "|---" * (len(sizes) + 1) + "|",
    ]
    for strategy, row in selection.items():
        few = row[sizes[0]]
        cells = (f"{row[size]:.0f} ({row[size] / few:.2f})" for size in sizes)
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "| figure | measured | target | |",
        "|---|---|---|---|",
        f"| set-ups with two proxies | {together:.0f}/s | {RATE_TARGET:.0f}/s or more "
        f"| {verdict(together / RATE_TARGET)} |",
        f"| of one proxy's alone | {together / alone:.2f} | | |",
    ]
    for strategy, row in selection.items():
        ratio = row[sizes[-1]] / row[sizes[0]]
        lines.append(
            f"| {strategy}: {sizes[-1]:,} servers, of {sizes[0]:,} | {ratio:.2f} "
            f"| {FLAT_TARGET} or less | {verdict(FLAT_TARGET / ratio)} |"
        )
    lines += [
        "",
        f"{options.rounds} windows of {options.seconds:g} s of each kind, shuffled; {options.in_flight} in flight at "
        f"each proxy, a load program for each, one game server. Proxies, loads and game server share the cores "
        f"{result['layout']}, pinned to none of them. Foreign load (median): {setups['foreign']:.2f} of a core. "
        f"Faults: {setups['faults']}. Selection: {options.slots} slots for each figure, in ten shuffled parts; "
        f"in brackets the ratio to {sizes[0]:,} servers.",
        f"{facts['processor']}, {len(facts['cores'])} cores, Linux {facts['kernel']}, Python {facts['python']}, "
        f"Twisted {facts['twisted']}, SQLite {facts['sqlite']} on {facts['filesystem']}; "
        f"commit {facts['commit'][:12]}{' with changes' if facts['changed'] else ''}.",
    ]
    return "\n".join(lines)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="windows of each kind")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a window")
    parser.add_argument("--in-flight", type=int, default=50, help="set-ups under way at each proxy")
    parser.add_argument("--slots", type=int, default=1000, help="slots for each figure")
    parser.add_argument(
        "--servers",
        type=int,
        nargs="+",
        default=[10, 100, 1000, 10_000],
        help="numbers of game servers, the fewest first",
    )
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
    machine.raise_descriptors(2 * 1000 + 200)
    with tempfile.TemporaryDirectory(prefix="gameproxy-bench-", dir=options.folder) as name:
        folder = Path(name)
        facts = machine.facts(folder)
        selection = measure_selection(folder, options)
        with ExitStack() as stack:
            programs = Programs(folder, stack, options.proxy, apart=False)
            setups = measure_setups(programs, options)
    result = {
        "machine": facts,
        "layout": programs.proxy_core,
        "options": vars(options),
        "setups": setups,
        "selection": selection,
    }
    print(report(result, options))
    machine.results_file("farm").write_text(json.dumps(result, indent=1) + os.linesep)
    return 1 if setups["faults"] else 0


if __name__ == "__main__":
    sys.exit(main())

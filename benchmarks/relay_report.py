"""The results of bench_relay.py as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan
from typing import Any

from bench_setup import verdict
from relay_figures import Row, rows, share_of_target
from relays import HAPROXY, NO_PROXY, WORKLOADS, Workload

FEW, MANY, BULK, PLAYERS, ONE = (workload.name for workload in WORKLOADS)
SOCKMAP = "gameproxy, sockmap"
CPU, RATE, P50 = "CPU added", "rate", "p50"
# Ratios to HAProxy of the same run; more is better for the rate, less for the others.
TARGETS: Mapping[str, Mapping[tuple[str, str], float]] = {
    "gameproxy, epoll": {
        (FEW, CPU): 1.15,
        (MANY, CPU): 1.05,
        (BULK, CPU): 0.40,
        (FEW, RATE): 0.95,
        (MANY, RATE): 1.0,
        (BULK, RATE): 1.6,
        (PLAYERS, P50): 1.05,
        (PLAYERS, CPU): 1.2,
        (ONE, P50): 1.0,
    },
    SOCKMAP: {
        (FEW, CPU): 0.9,
        (MANY, CPU): 0.75,
        (BULK, CPU): 0.38,
        (FEW, RATE): 1.0,
        (MANY, RATE): 1.2,
        (BULK, RATE): 1.4,
        (PLAYERS, P50): 0.8,
        (PLAYERS, CPU): 0.8,
        (ONE, P50): 0.25,
    },
}
MEMORY_TARGET = 10.0  # KiB of resident memory a relaying session


def report(result: Mapping[str, Any]) -> str:
    """All tables, and how they were measured."""
    figures = all_rows(result)
    lines = []
    for workload in WORKLOADS:
        lines += [*_table(workload, figures[workload.name]), ""]
    lines += [*_memory(result["memory"]), ""]
    for name, targets in TARGETS.items():
        if name in figures[FEW]:
            lines += [*_targets(name, targets, figures, result["memory"][name]), ""]
    return "\n".join([*lines, *_circumstances(result)])


def all_rows(result: Mapping[str, Any]) -> dict[str, dict[str, Row]]:
    """The figures of each relay, by work."""
    order = [NO_PROXY.name, *result["memory"]]
    windows = sorted(result["windows"], key=lambda window: order.index(window["kind"]))
    return {
        workload.name: rows(
            [window for window in windows if window["workload"] == workload.name],
            NO_PROXY.name,
            HAPROXY.name,
        )
        for workload in WORKLOADS
    }


def _table(workload: Workload, figures: Mapping[str, Row]) -> list[str]:
    unit, size = ("MB/s", workload.body / 1e6) if workload.is_bulk else ("round trips/s", 1.0)
    lines = [
        f"| {workload.name} | {unit} | lowest to highest | of HAProxy | p50, us | of HAProxy | p99, us "
        "| proxy CPU, us | CPU added, us | of HAProxy |",
        "|---" * 10 + "|",
    ]
    for name, row in figures.items():
        rate, low, high = (f"{value * size:.0f}" for value in (row.rate, row.low, row.high))
        added = (
            ("", "") if name == NO_PROXY.name else (f"{row.added_us:.1f}", _ratio(row.added_ratio))
        )
        cells = (
            *(name, rate, f"{low} to {high}", _ratio(row.rate_ratio)),
            *(f"{row.p50_us:.0f}", _ratio(row.p50_ratio), f"{row.p99_us:.0f}"),
            *(f"{row.proxy_us:.2f}", *added),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _ratio(value: float) -> str:
    return "" if isnan(value) else f"{value:.2f}"


def _memory(memory: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [
        "| resident memory | KiB a session | MiB with few | MiB with many |",
        "|---|---|---|---|",
    ]
    for name, row in memory.items():
        lines.append(
            f"| {name} | {row['kib_a_session']:.1f} | {row['before_mib']:.1f} | {row['after_mib']:.1f} |"
        )
    return lines


def _targets(
    name: str,
    targets: Mapping[tuple[str, str], float],
    figures: Mapping[str, Mapping[str, Row]],
    memory: Mapping[str, float],
) -> list[str]:
    lines = [f"| {name}, of HAProxy | measured | target | |", "|---|---|---|---|"]
    for (work, figure), target in targets.items():
        row = figures[work][name]
        value = {CPU: row.added_ratio, RATE: row.rate_ratio, P50: row.p50_ratio}[figure]
        share = share_of_target(value, target, more_is_better=figure == RATE)
        lines.append(f"| {figure}: {work} | {value:.2f} | {target:.2f} | {verdict(share)} |")
    kib = memory["kib_a_session"]
    lines.append(
        f"| resident memory a session | {kib:.1f} KiB | {MEMORY_TARGET:.0f} KiB | {verdict(MEMORY_TARGET / kib)} |"
    )
    return lines


def _circumstances(result: Mapping[str, Any]) -> Sequence[str]:
    facts, options = result["machine"], result["options"]
    cores = len(facts["cores"])
    left_out = "; ".join(f"{name}: {reason}" for name, reason in result["left_out"].items())
    idle = next(iter(result["memory"].values()))["sessions"]
    bulk = [w for w in result["windows"] if w["workload"] == BULK and w["kind"] == SOCKMAP]
    elsewhere = sum(window["elsewhere"] for window in bulk)
    sessions = len(bulk) * next(work.sessions for work in WORKLOADS if work.is_bulk)
    return [
        f"Medians of {options['rounds']} windows of {options['seconds']:g} s of each relay at each work, shuffled; "
        f"the scheduler places all on {cores} cores, but for pinned: the proxy on one, load and game server on the "
        f"other. CPU in microseconds a round trip. Memory: {idle} idle sessions. Foreign load: median "
        f"{result['foreign']:.2f} of a core, most {result['foreign_most']:.2f}. Faults: {result['faults']}.",
        *(
            [
                f"At the end of bulk's windows {elsewhere} of {sessions} sessions had stepped out of the kernel."
            ]
            if bulk
            else []
        ),
        *([f"Left out: {left_out}."] if left_out else []),
        f"{facts['processor']}, {cores} cores, Linux {facts['kernel']}, Python {facts['python']}, "
        f"Twisted {facts['twisted']}, {facts['haproxy']}; "
        f"commit {facts['commit'][:12]}{' with changes' if facts['changed'] else ''}.",
    ]

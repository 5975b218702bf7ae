"""The results of bench_relay.py as a plot: relay_plot.py RESULT.json PLOT.svg"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from relay_figures import Row
from relay_report import all_rows
from relays import NO_PROXY, WORKLOADS

PANELS: tuple[tuple[str, Callable[[Row], float]], ...] = (
    ("CPU added, of HAProxy's (less is better)", lambda row: row.added_ratio),
    ("rate, of HAProxy's (more is better)", lambda row: row.rate_ratio),
    ("p50, of HAProxy's (less is better)", lambda row: row.p50_ratio),
)
FULL = 4.0  # where the axes end: longer bars are cut, and their numbers say how long they are


def draw(result: Mapping[str, Any], file: Path) -> None:
    """Write an SVG: a panel for each figure, a group for each work, a bar for each relay."""
    figures = all_rows(result)
    kinds = [name for name in result["memory"] if name != NO_PROXY.name]
    works = [workload.name for workload in WORKLOADS]
    mpl.rcParams["svg.hashsalt"] = "gameproxy"  # the same figures make the same file
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    plot = Figure(figsize=(15, 7.5), layout="constrained")
    panels = plot.subplots(1, len(PANELS), sharey=True)
    height = 0.84 / len(kinds)
    for panel, (title, value_of) in zip(panels, PANELS, strict=True):
        for number, kind in enumerate(kinds):
            values = [value_of(figures[work][kind]) for work in works]
            places = [place + number * height for place in range(len(works))]
            bars = panel.barh(places, [min(value, FULL) for value in values], height, label=kind)
            panel.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=7)
        panel.axvline(1.0, color="black", linewidth=0.8)
        panel.set_xlim(0, FULL * 1.1)
        panel.set_title(title, fontsize=10)
    panels[0].set_yticks([place + 0.42 - height / 2 for place in range(len(works))], works)
    panels[0].invert_yaxis()
    plot.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(kinds)
    )
    facts = result["machine"]
    plot.suptitle(f"gameproxy {facts['commit'][:12]}, {facts['processor']}", fontsize=10)
    plot.savefig(file, metadata={"Date": None})


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

"""Runs in files: what makes a run, what came of it, and its trace, for replaying it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from gameproxy.simulation.faults import Fault
from gameproxy.simulation.runs import Result, Run


class NotARun(ValueError):
    """A file does not hold a run."""


def save(result: Result, path: Path) -> None:
    """Write a run: a line of JSON that makes it, and the lines of its trace."""
    head = as_json(result.run) | {"sha256": result.sha256, "failure": result.failure}
    with path.open("w") as file:
        file.write(json.dumps(head) + "\n")
        file.writelines(result.lines)


def load(path: Path) -> tuple[Run, str, list[str]]:
    """Read a run.

    :return: the run, the hash of its trace, and the trace's lines.
    :raises NotARun: that is no such file.
    :raises OSError: it cannot be read.
    """
    with path.open() as file:
        try:
            head = json.loads(file.readline())
            return from_json(head), head["sha256"], file.readlines()
        except (ValueError, KeyError, TypeError) as error:
            raise NotARun(f"{path} is no run: {error}") from error


def as_json(run: Run) -> dict[str, Any]:
    """What makes a run, for JSON."""
    return {
        "seed": run.seed,
        "scenario": run.scenario,
        "clients": run.clients,
        "proxies": run.proxies,
        "frames_max": run.frames_max,
        "left_out": sorted(run.left_out),
        "sites": run.sites,
        "faults": [[fault.number, fault.at, fault.kind] for fault in run.faults],
    }


def from_json(head: dict[str, Any]) -> Run:
    """The run that :func:`as_json` was given."""
    return Run(
        seed=int(head["seed"]),
        scenario=str(head["scenario"]),
        clients=int(head["clients"]),
        proxies=int(head["proxies"]),
        frames_max=head["frames_max"],
        left_out=frozenset(head["left_out"]),
        sites=tuple(head["sites"]),
        faults=tuple(Fault(number, at, kind) for number, at, kind in head["faults"]),
    )


def first_difference(before: list[str], now: list[str]) -> tuple[int, str, str] | None:
    """The first line in which two traces differ.

    :return: its number from 1, and both lines, of which one may be empty; ``None``: there is none.
    """
    pairs: Iterator[tuple[str, str]] = zip_longest(before, now, fillvalue="")
    for number, (old, new) in enumerate(pairs, 1):
        if old != new:
            return number, old.rstrip("\n"), new.rstrip("\n")
    return None

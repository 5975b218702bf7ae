"""What operators' commands have in common: their options, how they fail, and how they show what they found."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from gameproxy.cli.terminal import complain, printable
from gameproxy.config import Config, ConfigError, load
from gameproxy.farm.orders import OrderFailed
from gameproxy.strict_json import plain

CONFIG_HELP: Final = "the proxy's configuration (default: gameproxy.toml)"
_ANY_WIDTH: Final = 10_000
"""Columns where no terminal limits them: what is piped into another program is not broken into lines."""
_UNITS: Final = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


class CommandFailed(Exception):
    """Why a command failed, for people."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a command has to say.

    :param document: all of it, for programs.
    :param page: lines and tables, for people.
    """

    document: Mapping[str, object]
    page: Sequence[str | Table]


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--config`` and ``--json``, which may stand before or after a subcommand."""
    # A default would overwrite what stands before the subcommand.
    parser.add_argument(
        "--config",
        default=argparse.SUPPRESS,
        metavar="FILE",
        help=CONFIG_HELP,
    )
    parser.add_argument(
        "--json",
        action="store_true",
        default=argparse.SUPPRESS,
        help="print one JSON document, for programs",
    )


def command(
    find: Callable[[Config, argparse.Namespace], Report],
) -> Callable[[argparse.Namespace], int]:
    """Make the ``run`` of a command: prints what ``find`` reports: 0; or on standard error why it failed: 1."""

    def run(args: argparse.Namespace) -> int:
        try:
            report = find(load(getattr(args, "config", "gameproxy.toml")), args)
        except (ConfigError, CommandFailed, OrderFailed) as error:
            complain(error, getattr(args, "config", "gameproxy.toml"))
            return 1
        if getattr(args, "json", False):
            print(json.dumps(plain(report.document), indent=2))
        else:
            _show(report.page)
        return 0

    return run


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """A table whose cells are escaped. Columns whose name ends in ``#`` are numbers, and stand to the right.

    Where there is too little room cells are folded; but an ``id``, which people type again, stays whole.
    """
    found = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        right = column.endswith("#")
        found.add_column(
            column.removesuffix("#"),
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=column == "id",
        )
    for row in rows:
        found.add_row(*(_cell(value) for value in row))
    return found


def duration(value: object) -> str:
    """Seconds for people, roughly: ``5 s``, ``3 min``, ``12 d``; a question mark for what is no number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "?"
    for name, size in _UNITS:
        if abs(value) >= size:
            return f"{value / size:.0f} {name}"
    return "0 s"


def moment(value: object) -> str:
    """A time, seconds since the epoch, in local time; a question mark for what is none."""
    try:
        return datetime.fromtimestamp(float(str(value))).isoformat(" ", "seconds")
    except (ValueError, OverflowError, OSError):
        return "?"


def counts(values: Mapping[Any, object]) -> str:
    """Counts for people: ``8 relaying, 2 selecting``; ``none`` for none."""
    found = sorted(values.items(), key=lambda item: str(item[0]))
    return ", ".join(f"{count} {name}" for name, count in found) or "none"


def _show(page: Iterable[str | Table]) -> None:
    console = Console(file=sys.stdout, width=None if sys.stdout.isatty() else _ANY_WIDTH)
    for part in page:
        console.print(_cell(part) if isinstance(part, str) else part, highlight=False)


def _cell(value: object) -> Text:
    """A value of a row as text: never as markup, nor as anything else that a terminal would obey."""
    return Text("" if value is None else printable(str(value)))

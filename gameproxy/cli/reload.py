"""``gameproxy reload``: has running proxies go on with what their configuration file says now."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gameproxy.cli.asking import ORDER_PATIENCE, Answer, NoAnswer, ask, living_proxies
from gameproxy.cli.farm_database import reading
from gameproxy.cli.help_pages import ending
from gameproxy.cli.reporting import CommandFailed, Report, add_common_options, command
from gameproxy.config import Config
from gameproxy.config_changes import Change

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers


@dataclass(frozen=True, slots=True)
class _Reloaded:
    """What a proxy said.

    :param done: whether it goes on with it; ``None``: it was started with another file.
    :param problems: why not, a line each.
    :param left_out: how many changes or problems more there are than it has told.
    """

    done: bool | None
    changes: tuple[Change, ...] = ()
    problems: tuple[str, ...] = ()
    left_out: int = 0


def add_parser(subparsers: Subparsers) -> None:
    """Add ``reload`` to the commands."""
    parser = subparsers.add_parser(
        "reload",
        help="have the running proxy go on with a changed configuration",
        description="Has the proxies that were started with this file go on with what it says now, and shows what has"
        " changed. No session is ended. A proxy does all of it or nothing: if something cannot be used, or cannot"
        " change while it runs, it says at which place, and goes on as before.",
        epilog=ending(
            "gameproxy reload", "gameproxy reload --config /etc/gameproxy/gameproxy.toml"
        ),
    )
    add_common_options(parser)
    parser.set_defaults(run=command(_find))


def _find(config: Config, args: argparse.Namespace) -> Report:
    file = Path(getattr(args, "config", "gameproxy.toml")).absolute()
    database = config.database_path
    with reading(database) as cursor:
        proxies = [str(row["id"]) for row in living_proxies(cursor)]
    told: dict[str, _Reloaded] = {}
    trouble: list[str] = []
    for proxy in proxies:
        try:
            told[proxy] = _read(ask(database, proxy, ORDER_PATIENCE, ask="reload", file=str(file)))
        except NoAnswer as error:
            trouble.append(f"{proxy} {error}")
    own = {proxy: one for proxy, one in told.items() if one.done is not None}
    if not own and not trouble:
        trouble.append(f"no proxy runs with {file} on {database}: nothing was reloaded")
    for proxy, one in own.items():
        trouble += (f"{proxy}: {problem}" for problem in one.problems)
        if one.problems and one.left_out:
            trouble.append(f"{proxy}: {one.left_out} more problems are in its log")
    if trouble:
        done = [f"{proxy} was reloaded" for proxy, one in own.items() if one.done]
        raise CommandFailed("\n".join([*trouble, *done]))
    document = {
        "proxies": [
            {
                "proxy": proxy,
                "changes": [
                    {"place": change.place, "from": change.before, "to": change.after}
                    for change in one.changes
                ],
                "left_out": one.left_out,
            }
            for proxy, one in own.items()
        ]
    }
    return Report(document, [line for proxy, one in own.items() for line in _page(proxy, one)])


def _page(proxy: str, one: _Reloaded) -> Iterator[str]:
    if not one.changes:
        yield f"{proxy} was reloaded: nothing in its configuration has changed."
        return
    yield f"{proxy} was reloaded:"
    for change in one.changes:
        yield f"  {change}"
    if one.left_out:
        yield f"  and {one.left_out} more changes, which are in its log"


def _read(answer: Answer) -> _Reloaded:
    match answer.answer:
        case {"reloaded": None}:
            return _Reloaded(None)
        case {
            "reloaded": bool(done),
            "changes": list(changes),
            "problems": list(problems),
            "left_out": int(left_out),
        }:
            return _Reloaded(
                done,
                tuple(_change(one) for one in changes),
                tuple(_problem(one) for one in problems),
                left_out,
            )
    raise NoAnswer(answer.message or "gives no answer that makes sense")


def _change(told: object) -> Change:
    match told:
        case {"place": str(place), "from": str() | None as before, "to": str() | None as after}:
            return Change(place, before, after)
    raise NoAnswer("gives no answer that makes sense")


def _problem(told: object) -> str:
    match told:
        case {"place": str(place), "problem": str(problem)}:
            return ": ".join(filter(None, (place, problem)))
    raise NoAnswer("gives no answer that makes sense")

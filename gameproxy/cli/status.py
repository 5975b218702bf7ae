"""``gameproxy status``: how the farm and its running proxies stand."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.table import Table

from gameproxy.cli.asking import STATUS_PATIENCE, Answer, NoAnswer, ask, living_proxies
from gameproxy.cli.farm_database import reading
from gameproxy.cli.help_pages import ending
from gameproxy.cli.reporting import Report, add_common_options, command, counts, duration, table
from gameproxy.config import Config
from gameproxy.farm import reports

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

Counts = Mapping[str, int]
_NO_RELAYS: Final = {"transport": 0, "epoll": 0, "sockmap": 0}


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """What a running proxy says of itself.

    :param sessions: how many it has.
    :param relay: the relay that is ``configured``, and why ``sockmap`` has no sessions, or ``on``.
    :param state: ``serving``, or why not: ``starting``, ``draining``.
    :param drain: while it is being stopped: ``since`` when, when it ``ends_at`` the latest (seconds since the epoch),
        and how many ``sessions`` are left.
    """

    sessions: int
    by_state: Counts
    by_relay: Counts
    relay: Mapping[str, str]
    limits: Counts
    state: str = "serving"
    drain: Mapping[str, float] | None = None


def add_parser(subparsers: Subparsers) -> None:
    """Add ``status`` to the commands."""
    parser = subparsers.add_parser(
        "status",
        help="show the running proxies: sessions, queue, limits",
        description="Shows how the farm stands, as its database has it, and what its running proxies say of"
        " themselves: sessions, the queue and limits. A proxy that does not answer is named, and does not fail it.",
        epilog=ending("gameproxy status", "watch -n 2 gameproxy status", "gameproxy status --json"),
    )
    add_common_options(parser)
    parser.set_defaults(run=command(_find))


def _find(config: Config, args: argparse.Namespace) -> Report:
    with reading(config.database_path) as cursor:
        farm = reports.farm_status(cursor)
        rows = living_proxies(cursor)
    answers = [_ask(config.database_path, row["id"]) for row in rows]
    told = [answer for answer in answers if isinstance(answer, ProxyStatus)]
    total = ProxyStatus(
        sum(one.sessions for one in told),
        _sum(one.by_state for one in told),
        _NO_RELAYS | _sum(one.by_relay for one in told),
        {},
        _sum(one.limits for one in told),
    )
    document = {
        "sessions": {
            "total": total.sessions,
            "by_state": total.by_state,
            "by_relay": total.by_relay,
            "by_game": {str(row["game"]): row["sessions"] for row in farm.games},
        },
        "limits": total.limits,
        **farm.document(),
        "proxies": [
            row
            | (
                {"answers": True, **asdict(answer)}
                if isinstance(answer, ProxyStatus)
                else {"answers": False, "trouble": answer}
            )
            for row, answer in zip(rows, answers, strict=True)
        ],
    }
    page: list[str | Table] = [
        f"Sessions: {total.sessions} ({counts(total.by_state)}), {farm.waiting} waiting in the queue",
        f"Relayed by: {counts({plane: count for plane, count in total.by_relay.items() if count})}",
        *_broken(total.limits),
        _games(farm.games),
        *_not_in_kernel(told),
        "",
        _proxies(rows, answers) if rows else "No proxy runs.",
    ]
    return Report(document, page)


def _broken(limits: Counts) -> Iterator[str]:
    """Which limits sessions have broken, if any were."""
    found = {}
    for name, number in limits.items():
        limit = re.fullmatch(r"(\w+)_(dry_run|enforce)_sessions", name)
        if limit is not None and number:
            found[f"{limit[1]} ({limit[2]})"] = number
    if found:
        yield f"Limits broken: {counts(found)}"


def _not_in_kernel(told: Iterable[ProxyStatus]) -> list[str]:
    """Why the kernel relays no sessions, where it was to; each reason once."""
    reasons = {one.relay["sockmap"]: None for one in told if one.relay["configured"] == "auto"}
    return [f"Not relayed by the kernel: {reason}" for reason in reasons if reason != "on"]


def _games(games: Sequence[Mapping[str, object]]) -> Table:
    columns = ("game", "sessions#", "waiting#", "servers#", "free slots#", "failed starts#")
    names = ("game", "sessions", "waiting", "servers", "free", "failures")
    return table(columns, ([row[name] for name in names] for row in games))


def _proxies(rows: Sequence[Mapping[str, object]], answers: Sequence[ProxyStatus | str]) -> Table:
    columns = ("proxy", "pid#", "sign of life", "sessions#", "at most#", "")
    return table(
        columns,
        (
            (row["id"], row["pid"], f"{_age(row['beat'])} ago", *_state(answer))
            for row, answer in zip(rows, answers, strict=True)
        ),
    )


def _state(answer: ProxyStatus | str) -> tuple[object, object, str]:
    if isinstance(answer, str):
        return "", "", answer
    states = counts(answer.by_state)
    if answer.drain is not None:
        left = answer.drain["ends_at"] - time.time()
        ends = f"those left end in {duration(left)}" if left > 0 else "those left are being ended"
        states = f"draining since {_age(answer.drain['since'])}, {ends}: {states}"
    elif answer.state != "serving":
        states = f"{answer.state}: {states}"
    return answer.sessions, answer.limits.get("max_sessions"), states


def _age(at: object) -> str:
    return duration(time.time() - at if isinstance(at, int | float) else at)


def _ask(database: Path, proxy: object) -> ProxyStatus | str:
    """What a proxy says, or why it says nothing."""
    try:
        return _read(ask(database, proxy, STATUS_PATIENCE, ask="status"))
    except NoAnswer as error:
        return str(error)


def _read(answer: Answer) -> ProxyStatus:
    match answer.answer:
        case {
            "sessions": {
                "total": int(total),
                "by_state": dict(by_state),
                "by_relay": dict(by_relay),
            },
            "relay": {"configured": str(configured), "sockmap": str(sockmap)},
            "limits": dict(limits),
            **more,
        } if all(isinstance(n, int) for t in (by_state, by_relay, limits) for n in t.values()):
            relay = {"configured": configured, "sockmap": sockmap}
            state, drain = str(more.get("state", "serving")), _drain(more.get("drain"))
            return ProxyStatus(total, by_state, by_relay, relay, limits, state, drain)
    raise NoAnswer("gives no answer that makes sense")


def _drain(told: object) -> Mapping[str, float] | None:
    match told:
        case None:
            return None
        case {
            "since": int() | float() as since,
            "ends_at": int() | float() as ends_at,
            "sessions": int(left),
        }:
            return {"since": since, "ends_at": ends_at, "sessions": left}
    raise NoAnswer("gives no answer that makes sense")


def _sum(parts: Iterable[Counts]) -> dict[str, int]:
    """The sums, name by name; a name with the sum 0 stays."""
    total: dict[str, int] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total

"""``gameproxy farm``: the game servers, and what is done with one."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING, Final

from gameproxy.cli.asking import Answer, NoAnswer, NobodyToAsk, living_proxies, order
from gameproxy.cli.farm_database import reading, writing
from gameproxy.cli.farm_stop import stop_without_proxy
from gameproxy.cli.help_pages import ending
from gameproxy.cli.reporting import (
    CommandFailed,
    Report,
    add_common_options,
    command,
    counts,
    duration,
    table,
)
from gameproxy.config import Config
from gameproxy.farm import orders, reports

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

_ID_HELP: Final = "the game server's id, as `gameproxy farm` shows it"


def add_parser(subparsers: Subparsers) -> None:
    """Add ``farm`` to the commands."""
    parser = subparsers.add_parser(
        "farm",
        help="show the game servers; start, drain or stop one",
        description="Shows the game servers that are not closed, and the farm's sums; or does something with one.",
        epilog=ending(
            "gameproxy farm",
            "gameproxy farm --json",
            "gameproxy farm start chat",
            "gameproxy farm drain chat-1f3a",
            "gameproxy farm stop chat-1f3a",
        ),
    )
    add_common_options(parser)
    parser.set_defaults(run=command(_list))
    actions = parser.add_subparsers(title="actions", metavar="ACTION")
    for name, find, argument, what, more in (
        ("list", _list, None, "show the game servers; so does farm alone", ""),
        (
            "start",
            _start,
            ("game", "the name of one of [[games]]"),
            "have a running proxy start a game server",
            " It is used as soon as it says that it is ready.",
        ),
        (
            "drain",
            _drain,
            ("id", _ID_HELP),
            "let nobody else onto a game server",
            " Those who play there play on.",
        ),
        (
            "stop",
            _stop,
            ("id", _ID_HELP),
            "end a game server that was started",
            " It is asked to end, and made to after the stop_grace of its game; sessions end with it.",
        ),
    ):
        action = actions.add_parser(name, help=what, description=f"{what.capitalize()}.{more}")
        if argument is not None:
            attribute, meaning = argument
            action.add_argument(attribute, metavar=attribute.upper(), help=meaning)
        add_common_options(action)
        action.set_defaults(run=command(find))


def _list(config: Config, args: argparse.Namespace) -> Report:
    now = time.time()
    with reading(config.database_path) as cursor:
        servers = reports.server_rows(cursor)
        stats = reports.farm_stats(cursor)
    columns = ("id", "game", "state", "relaying#", "reserved#", "of#", "so far#", "load#")
    names = ("id", "game", "state", "connections", "reserved", "capacity", "connections_added")
    rows = [
        [
            *(server[name] for name in (*names, "reported_load")),
            f"{server['host'] or ''}:{server['port'] or ''}".strip(":"),
            _heartbeat(server["heartbeat_at"], now),
            server["pid"],
        ]
        for server in servers
    ]
    by_state = stats["servers"]
    assert isinstance(by_state, dict)
    page = [
        table((*columns, "listens at", "heartbeat", "pid#"), rows)
        if rows
        else "There is no game server.",
        "",
        f"Game servers: {counts(by_state)}. Sessions: {stats['connections']} relaying"
        f" ({stats['connections_added']} came, {stats['connections_removed']} went),"
        f" {stats['reserved']} slots reserved.",
    ]
    return Report({"servers": servers, "farm": stats}, page)


def _start(config: Config, args: argparse.Namespace) -> Report:
    with reading(config.database_path) as cursor:
        proxies = [row["id"] for row in living_proxies(cursor)]
    try:
        answer = order(config.database_path, proxies, ask="start", game=args.game)
    except NoAnswer as error:
        raise CommandFailed(str(error)) from None
    if answer.error == "unknown_game":
        raise CommandFailed(f"{args.game}: no running proxy starts game servers of this game")
    if answer.error == "no_server":
        raise CommandFailed(f"{args.game}: there are max_servers game servers already")
    server = _done(answer)["server"]
    return Report({"server": server}, [f"{server} is being started."])


def _drain(config: Config, args: argparse.Namespace) -> Report:
    with writing(config.database_path) as cursor:
        orders.order_drain(cursor, args.id)
    return Report(
        {"server": args.id, "state": "draining"}, [f"{args.id} lets nobody else in from now on."]
    )


def _stop(config: Config, args: argparse.Namespace) -> Report:
    with reading(config.database_path) as cursor:
        keeper = orders.look_up_to_stop(cursor, args.id).keeper
        proxies = [row["id"] for row in living_proxies(cursor)]
    # Its process may be out of the sight of all proxies but the one that looks after it.
    proxies.sort(key=lambda proxy: proxy != keeper)
    try:
        answer = order(config.database_path, proxies, ask="stop", server=args.id)
    except NobodyToAsk:
        return stop_without_proxy(config, args.id)
    except NoAnswer as error:
        raise CommandFailed(str(error)) from None
    if not _done(answer)["stopped"]:
        raise CommandFailed(f"{args.id}: has ended already")
    return Report(
        {"server": args.id, "state": "draining"},
        [f"{args.id} has been asked to end, and will be made to after its stop_grace."],
    )


def _done(answer: Answer) -> dict[str, object]:
    if answer.answer is None:
        raise CommandFailed(answer.message)
    return answer.answer


def _heartbeat(at: object, now: float) -> str:
    if at is None:
        return ""
    return f"{duration(now - at)} ago" if isinstance(at, int | float) else "?"

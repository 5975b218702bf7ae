"""``gameproxy ban``, ``unban`` and ``bans``: who may not play."""

from __future__ import annotations

import argparse
import getpass
import sqlite3
import time
from typing import TYPE_CHECKING, Final

from gameproxy import subjects
from gameproxy.cli.durations import seconds
from gameproxy.cli.farm_database import reading, writing
from gameproxy.cli.help_pages import ending
from gameproxy.cli.reporting import (
    CommandFailed,
    Report,
    add_common_options,
    command,
    moment,
    table,
)
from gameproxy.config import Config
from gameproxy.farm import reports
from gameproxy.subjects import REASON_MAX, Subject, subject_of

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

SHOWN_MAX: Final = 1000
"""Bans of which people are shown a table; programs get all."""
_USAGE: Final = "%(prog)s [player | address] SUBJECT [--config FILE] [--json]"
BAN_USAGE: Final = (
    "%(prog)s [player | address] SUBJECT\n"
    "           [--for SECONDS] [--reason TEXT] [--config FILE] [--json]"
)


def add_parser(subparsers: Subparsers) -> None:
    """Add ``ban``, ``unban`` and ``bans`` to the commands."""
    ban = subparsers.add_parser(
        "ban",
        usage=BAN_USAGE,
        help="ban a player or an address",
        description="Bans a player or an address at all proxies; their sessions end within a second."
        " Without --for it is for ever. Of two bans of one player or address the longer one holds.",
        epilog=ending(
            "gameproxy ban ada",
            'gameproxy ban guest:ada --for 12h --reason "spoils the game"',
            "gameproxy ban address 192.0.2.0/24 --for 7d",
        ),
    )
    add_subject(ban)
    add_ban_options(ban)
    add_common_options(ban)
    ban.set_defaults(run=command(_ban))
    unban = subparsers.add_parser(
        "unban",
        usage=_USAGE,
        help="lift a ban",
        description="Lifts a ban of a player or an address, as `gameproxy bans` shows it.",
        epilog=ending(
            "gameproxy unban ada",
            "gameproxy unban address 192.0.2.0/24",
            status="0 done, 1 failed or there was no such ban, 2 wrong usage",
        ),
    )
    add_subject(unban)
    add_common_options(unban)
    unban.set_defaults(run=command(_unban))
    bans = subparsers.add_parser(
        "bans",
        help="show the bans",
        description="Shows the bans: of whom, until when, why, by whom and since when.",
        epilog=ending("gameproxy bans", "gameproxy bans --json"),
    )
    add_common_options(bans)
    bans.set_defaults(run=command(_bans))


def add_subject(parser: argparse.ArgumentParser) -> None:
    """Add what says whom it concerns: ``[player] NAME`` or ``address ADDRESS``."""
    parser.add_argument(
        "subject",
        nargs="+",
        action=_Subject,
        metavar="SUBJECT",
        help="a player's name (of a guest: guest:NAME); after the word address, an IP or CIDR",
    )


def add_ban_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--for`` and ``--reason``."""
    parser.add_argument(
        "--for",
        dest="seconds",
        type=seconds,
        metavar="SECONDS",
        help="for how long; also with a unit: 30m, 12h, 7d",
    )
    parser.add_argument(
        "--reason",
        type=_reason,
        metavar="TEXT",
        help="why, for the list of bans; no player sees it",
    )


def write_ban(
    cursor: sqlite3.Cursor, subject: Subject, seconds: float | None, reason: str | None
) -> dict[str, object]:
    """Ban in this operator's name.

    :return: the ban, which may be an earlier one that is longer.
    """
    actor = f"operator {_operator()}"
    return subjects.ban(cursor, subject, seconds, reason or "", actor, time.time())


def _ban(config: Config, args: argparse.Namespace) -> Report:
    with writing(config.database_path) as cursor:
        ban = write_ban(cursor, args.subject, args.seconds, args.reason)
    return Report(ban, [f"{ban['kind']} {ban['subject']} is banned {_until(ban['expires_at'])}."])


def _unban(config: Config, args: argparse.Namespace) -> Report:
    kind, name = args.subject
    with writing(config.database_path) as cursor:
        lifted = subjects.unban(cursor, args.subject)
    if not lifted:
        raise CommandFailed(f"{kind} {name}: is not banned")
    return Report({"kind": kind, "subject": name}, [f"{kind} {name} is not banned any more."])


def _bans(config: Config, args: argparse.Namespace) -> Report:
    with reading(config.database_path) as cursor:
        bans = reports.ban_rows(cursor, time.time())
    rows = [
        [
            ban["kind"],
            ban["subject"],
            _until(ban["expires_at"]),
            ban["reason"],
            ban["actor"],
            moment(ban["created_at"]),
        ]
        for ban in bans[:SHOWN_MAX]
    ]
    columns = ("", "subject", "banned", "reason", "by", "since")
    shown = [table(columns, rows) if rows else "Nobody is banned."]
    if len(bans) > SHOWN_MAX:
        shown.append(f"These are {SHOWN_MAX} of {len(bans)}; --json gives all.")
    return Report({"bans": bans}, shown)


class _Subject(argparse.Action):
    """Makes ``(kind, subject)`` of one or two words, written as the proxies compare them."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(values, list)
        if len(values) == 1:
            kind, name = "player", values[0]
            if _is_address(name):
                raise argparse.ArgumentError(
                    self, f"{name} is an address: say address {name}, or player {name}"
                )
        elif len(values) == 2 and values[0] in ("player", "address"):
            kind, name = values
        else:
            raise argparse.ArgumentError(self, "must be a name, or player NAME, or address ADDRESS")
        try:
            subject = subject_of(kind, name)
        except ValueError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, subject)


def _is_address(text: str) -> bool:
    try:
        subject_of("address", text)
    except ValueError:
        return False
    return True


def _reason(text: str) -> str:
    if len(text) > REASON_MAX or not text.isprintable():
        raise argparse.ArgumentTypeError(f"must be at most {REASON_MAX} printable characters")
    return text


def _operator() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # without an entry in the table of users
        return "unknown"


def _until(expires_at: object) -> str:
    return "for ever" if expires_at is None else f"until {moment(expires_at)}"

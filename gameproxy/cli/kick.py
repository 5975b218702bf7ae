"""``gameproxy kick``: end sessions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gameproxy import subjects
from gameproxy.cli.bans import BAN_USAGE, add_ban_options, add_subject, write_ban
from gameproxy.cli.farm_database import writing
from gameproxy.cli.help_pages import ending
from gameproxy.cli.reporting import CommandFailed, Report, add_common_options, command
from gameproxy.config import Config

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add ``kick`` to the commands."""
    parser = subparsers.add_parser(
        "kick",
        usage=BAN_USAGE,
        help="end the sessions of a player or an address",
        description="Ends all sessions of a player or from an address, at all proxies, within a second; with --for,"
        " bans them for so long too.",
        epilog=ending(
            "gameproxy kick ada",
            'gameproxy kick guest:ada --for 30m --reason "spoils the game"',
            "gameproxy kick address 192.0.2.0/24",
            status="0 done, 1 failed or there was no session, 2 wrong usage",
        ),
    )
    add_subject(parser)
    add_ban_options(parser)
    add_common_options(parser)
    parser.set_defaults(run=command(_kick), usage_error=parser.error)


def _kick(config: Config, args: argparse.Namespace) -> Report:
    if args.reason is not None and args.seconds is None:
        args.usage_error("--reason is that of the ban: it needs --for")
    kind, name = args.subject
    with writing(config.database_path) as cursor:
        sessions = subjects.kick(cursor, args.subject)
        if args.seconds is not None:
            write_ban(cursor, args.subject, args.seconds, args.reason)
    if not sessions and args.seconds is None:
        raise CommandFailed(f"{kind} {name}: has no session")
    what = "1 session" if sessions == 1 else f"{sessions} sessions"
    return Report(
        {"kind": kind, "subject": name, "sessions": sessions},
        [f"{kind} {name}: {what} will have ended within a second."],
    )

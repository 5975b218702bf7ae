"""The command ``gameproxy``. Each module of it adds one or more subcommands with ``add_parser``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Final

from gameproxy import __version__
from gameproxy.cli import (
    bans,
    check,
    completion,
    connect,
    demo,
    farm,
    key,
    kick,
    password,
    play,
    reload,
    sim,
    status,
    ticket,
)
from gameproxy.cli.help_pages import CommandParser

_COMMANDS = (
    demo,
    play,
    connect,
    check,
    status,
    reload,
    farm,
    bans,
    kick,
    ticket,
    password,
    key,
    sim,
    completion,
)

_DESCRIPTION: Final = """\
A front door for game servers: verifies who a player is, finds or starts a game server with room, and relays between \
the two. These commands try it out and operate it; the proxy itself is a service of twist or twistd."""
_EPILOG: Final = """\
To begin with:
  gameproxy demo
  gameproxy check gameproxy.toml
  twist gameproxy --config gameproxy.toml
  gameproxy connect 127.0.0.1:7777 --guest ada

gameproxy COMMAND --help tells more of each command.
Exit status: 0 done, 1 failed (standard error tells why), 2 wrong usage."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    :param arguments: those of the command line, without the program's name; ``None`` for the process's own.
    :return: the exit status: 0 done, 1 failed.
    :raises SystemExit: with 2 after wrong usage, with 0 after ``--help`` and ``--version``.
    """
    args = command_line().parse_args(arguments)
    status: int = args.run(args)
    return status


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser: argparse.ArgumentParser = CommandParser(
        prog="gameproxy", description=_DESCRIPTION, epilog=_EPILOG
    )
    parser.add_argument("--version", action="version", version=f"gameproxy {__version__}")
    parser.set_defaults(command_line=parser)
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    return parser

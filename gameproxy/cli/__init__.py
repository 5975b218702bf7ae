"""The command ``gameproxy``. Each module of it adds one or more subcommands with ``add_parser``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from gameproxy import __version__
from gameproxy.cli import (
    bans,
    check,
    connect,
    demo,
    farm,
    key,
    kick,
    password,
    play,
    status,
    ticket,
)

_COMMANDS = (demo, play, connect, check, status, farm, bans, kick, ticket, password, key)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand.

    :param arguments: those of the command line, without the program's name; ``None`` for the process's own.
    :return: the exit status: 0 done, 1 failed.
    :raises SystemExit: with 2 after wrong usage, with 0 after ``--help`` and ``--version``.
    """
    parser = argparse.ArgumentParser(prog="gameproxy", description="A front door for game servers.")
    parser.add_argument("--version", action="version", version=f"gameproxy {__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(subparsers)
    args = parser.parse_args(arguments)
    status: int = args.run(args)
    return status

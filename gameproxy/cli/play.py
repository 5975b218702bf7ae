"""``gameproxy play HOST:PORT``: the arena, for a person at a terminal."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from gameproxy.cli.connect import add_player, auth_of
from gameproxy.client import Client

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add ``play`` to the commands."""
    parser = subparsers.add_parser(
        "play",
        help="play the arena, the game that comes with gameproxy",
        description="Plays the arena: pick up coins, and keep away from who is it. The proxy's game servers must be"
        " `python -m gameproxy.arena`, as those of `gameproxy demo` are. Needs the extra `arena`.",
        epilog="Keys: arrows or WASD to run, x to stop, space to dash, q to leave. Exit status: 0 when you have left,"
        " 1 when it ended otherwise.",
    )
    add_player(parser)
    parser.set_defaults(run=run, dialect="native", properties=None)


def run(args: argparse.Namespace) -> int:
    """Play: 0 when the player has left, 1 when it ended otherwise or cannot begin."""
    try:
        from gameproxy.arena.screen import ArenaScreen
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "textual":
            raise
        # By the path of this Python: the first pip in PATH may be another one's.
        install = f"{sys.executable} -m pip install 'gameproxy[arena]'"
        print(f"To play, install textual: {install}", file=sys.stderr)
        return 1
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        print("To play, you need a terminal.", file=sys.stderr)
        return 1
    auth = auth_of(args)
    host, port = args.address
    screen = ArenaScreen(lambda loop: Client(loop, host, port, auth), os.urandom)
    status = screen.run()
    if screen.farewell:
        print(screen.farewell, file=sys.stderr)
    return 1 if status is None else status

"""``gameproxy completion SHELL``: what makes a shell complete the commands and options of ``gameproxy``."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import shtab

from gameproxy.cli.help_pages import ending

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add ``completion`` to the commands."""
    parser = subparsers.add_parser(
        "completion",
        help="make bash or zsh complete commands and options",
        description="Prints a script after which the shell completes the commands of gameproxy, their options, and the"
        " names of files. Put the line for your shell into the file of its settings, ~/.bashrc or (after compinit)"
        " ~/.zshrc.",
        epilog=ending(
            'eval "$(gameproxy completion bash)"',
            'eval "$(gameproxy completion zsh)"',
        ),
    )
    parser.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the script for ``args.shell``, made of ``args.command_line``, the parser of all commands: 0."""
    _complete_files(args.command_line)
    print(shtab.complete(args.command_line, args.shell))
    return 0


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Have file names completed wherever the help says FILE, in all commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _complete_files(command)
        elif isinstance(action.metavar, str) and action.metavar.endswith("FILE"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # it is there that shtab looks

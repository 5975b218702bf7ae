"""``gameproxy password NAME``: make a line of the password file."""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from typing import TYPE_CHECKING

from gameproxy.auth import BadName, hash_password, user_name
from gameproxy.cli.help_pages import ending
from gameproxy.cli.terminal import printable

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers


class _NoPassword(Exception):
    """Why there is no password."""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``password`` to the commands."""
    parser = subparsers.add_parser(
        "password",
        help="make a line of the password file",
        description="Reads a password from the terminal, or a line of standard input, and prints name:hash,"
        " the line for the file that auth.password_file names. The hash is argon2id.",
        epilog=ending("gameproxy password ada >> passwords"),
    )
    parser.add_argument("name", metavar="NAME", help="the player's name")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a line of the password file: 0; or say on standard error why there is none: 1."""
    try:
        name = user_name(args.name)
        password = _read_password()
    except (BadName, _NoPassword) as error:
        print(printable(str(error)), file=sys.stderr)
        return 1
    print(f"{name}:{hash_password(password, os.urandom(16))}")
    return 0


def _read_password() -> bytes:
    if sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise _NoPassword("these are two different passwords")
    else:
        password = sys.stdin.readline().removesuffix("\n")
    if not password:
        raise _NoPassword("an empty password is none")
    try:
        return password.encode("utf-8")
    except UnicodeEncodeError:
        raise _NoPassword("the password is not UTF-8") from None

"""``gameproxy key ID``: print a game server's key, to be put into a file where it runs."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from gameproxy.cli.help_pages import ending
from gameproxy.cli.reporting import CONFIG_HELP
from gameproxy.cli.terminal import complain
from gameproxy.config import Config, ConfigError, load
from gameproxy.handshake import derive_server_key
from gameproxy.keys import KeyFileError, read_key_file, read_secret

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Add ``key`` to the commands."""
    parser = subparsers.add_parser(
        "key",
        help="print a game server's key",
        description="Prints the 64 hexadecimal digits of a game server's key: that of its key_file, or one derived"
        " from the farm's secret, which is made if it is absent. It is for a server of [[servers]]; those that a proxy"
        " starts get theirs by themselves.",
        epilog=ending("(umask 077; gameproxy key de-1 > de-1.key)"),
    )
    parser.add_argument("id", metavar="ID", help="the game server's id")
    parser.add_argument("--config", default="gameproxy.toml", metavar="FILE", help=CONFIG_HELP)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the key of ``args.id``: 0; or say on standard error why there is none: 1."""
    try:
        print(_key(load(args.config), args.id).hex())
    except (ConfigError, KeyFileError) as error:
        complain(error, args.config)
        return 1
    return 0


def _key(config: Config, server_id: str) -> bytes:
    for server in config.servers:
        if server.id == server_id and server.key_file:
            return read_key_file(config.resolve(server.key_file))
    return derive_server_key(
        read_secret(config.resolve(config.proxy.secret_file), os.urandom), server_id
    )

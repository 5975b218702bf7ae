"""``gameproxy check FILE``: is this configuration good to run with, and if not, what is wrong and where?"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactor

from gameproxy.admission import TooFewDescriptors, ensure_descriptors
from gameproxy.auth.password_file import PasswordFile, PasswordFileError
from gameproxy.cli.help_pages import ending
from gameproxy.cli.terminal import printable
from gameproxy.config import Config, ConfigError, Problem, load
from gameproxy.config_values import listening_endpoint
from gameproxy.keys import KeyFileError, read_key_file, read_secret_file, read_ticket_key
from gameproxy.tls import Credentials, CredentialsError

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def add_parser(subparsers: Subparsers) -> None:
    """Add ``check`` to the commands."""
    parser = subparsers.add_parser(
        "check",
        help="validate a configuration: every error, with its place",
        description="Says whether a proxy can run with a configuration and with what it names: endpoints, files and"
        " programs. If not, prints every error with its place, a line each, on standard error.",
        epilog=ending(
            "gameproxy check gameproxy.toml",
            status="0 a proxy can run with it, 1 it cannot, 2 wrong usage",
        ),
    )
    parser.add_argument("file", metavar="FILE", help="the configuration, in TOML")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Check ``args.file``: 0 if a proxy can run with it, else 1 and a line for each problem on standard error."""
    try:
        problems = list(problems_around(load(args.file)))
    except ConfigError as error:
        problems = error.problems
    for problem in problems:
        print(printable(": ".join(filter(None, (args.file, *problem)))), file=sys.stderr)
    if not problems:
        print(printable(f"{args.file}: ok"))
    return 1 if problems else 0


def problems_around(config: Config) -> Iterator[Problem]:
    """What is wrong with the things that a valid configuration names: endpoints, files and programs."""
    for section in ("proxy", "tls", "proxy_protocol"):
        for index, description in enumerate(getattr(config, section).listen):
            # The sockets that systemd passes on are only there when it starts the proxy.
            if not description.startswith("systemd:"):
                try:
                    listening_endpoint(MemoryReactor(), description)
                except ValueError as error:
                    yield f"{section}.listen[{index}]", str(error)
    if config.admin.listen:
        try:
            listening_endpoint(MemoryReactor(), config.admin.listen)
        except ValueError as error:
            yield "admin.listen", str(error)
    try:
        ensure_descriptors(config.proxy.max_sessions)
    except TooFewDescriptors as error:
        yield "proxy.max_sessions", str(error)
    folder = config.database_path.parent
    if not folder.is_dir():
        yield "proxy.database", f"there is no folder {folder}"
    for place, path, read in _files(config):
        try:
            read(path)
        except (KeyFileError, PasswordFileError) as error:
            yield place, f"{path} {error}"
    try:
        Credentials(config, Clock())
    except CredentialsError as error:
        yield from error.problems
    for index, game in enumerate(config.games):
        program = game.command[0]
        if not shutil.which(str(config.resolve(program)) if "/" in program else program):
            yield f"games[{index}].command", f"{program} is no program that can be run"


def _files(config: Config) -> Iterator[tuple[str, Path, Callable[[Path], object]]]:
    """The files that must be right for a proxy to start: the place that names each, its path, and what reads it."""
    if config.secret_path.exists():
        yield "proxy.secret_file", config.secret_path, read_secret_file
    token = config.resolve(config.admin.token_file)
    if config.admin.listen and token.exists():
        yield "admin.token_file", token, read_secret_file
    if config.auth.password_file:
        yield "auth.password_file", config.resolve(config.auth.password_file), PasswordFile
    for index, key in enumerate(config.auth.ticket_keys):
        reader = partial(read_ticket_key, algorithm=key.algorithm)
        yield f"auth.ticket_keys[{index}].file", config.resolve(key.file), reader
    for index, server in enumerate(config.servers):
        if server.key_file:
            yield f"servers[{index}].key_file", config.resolve(server.key_file), read_key_file

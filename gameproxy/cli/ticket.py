"""``gameproxy ticket``: issue a ticket to try things with, as a web site or launcher would."""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gameproxy.auth import BadName, SigningKey, VerifyingKey, issue_ticket, normalise_name
from gameproxy.cli.help_pages import ending
from gameproxy.cli.reporting import CONFIG_HELP
from gameproxy.cli.terminal import complain
from gameproxy.config import Config, ConfigError, TicketKeyConfig, load
from gameproxy.keys import KeyFileError, read_ticket_key

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers


class _NoTicket(Exception):
    """Why no ticket can be issued."""


def add_parser(subparsers: Subparsers) -> None:
    """Add ``ticket`` to the commands."""
    parser = subparsers.add_parser(
        "ticket",
        help="issue a ticket for trying things",
        description="Prints a ticket (a JWT, good once) as a web site or launcher would issue it, signed with one of"
        " the proxy's auth.ticket_keys.",
        epilog=ending(
            "gameproxy ticket --player ada",
            "gameproxy ticket --player ada --key launcher --private-key launcher.pem",
            'gameproxy connect 127.0.0.1:7777 --ticket "$(gameproxy ticket --player ada)"',
        ),
    )
    parser.add_argument("--config", default="gameproxy.toml", metavar="FILE", help=CONFIG_HELP)
    parser.add_argument("--player", required=True, metavar="NAME", help="whom it is for")
    parser.add_argument(
        "--key", metavar="ID", help="one of auth.ticket_keys; not needed when there is only one"
    )
    parser.add_argument("--game", metavar="GAME", help="the only game that it is good for")
    parser.add_argument(
        "--for",
        dest="seconds",
        type=_seconds,
        default=60.0,
        metavar="SECONDS",
        help="how long it is good for, at most auth.ticket_lifetime (default: 60)",
    )
    parser.add_argument(
        "--private-key",
        type=Path,
        metavar="PEMFILE",
        help="what to sign with; needed for EdDSA and ES256",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print a ticket: 0; or say on standard error why there is none: 1."""
    try:
        print(_issue(load(args.config), args))
    except (ConfigError, _NoTicket) as error:
        complain(error, args.config)
        return 1
    return 0


def _issue(config: Config, args: argparse.Namespace) -> str:
    try:
        player = normalise_name(args.player)
    except BadName as error:
        raise _NoTicket(f"--player: {error}") from None
    if args.seconds > config.auth.ticket_lifetime:
        raise _NoTicket(f"--for: at most auth.ticket_lifetime: {config.auth.ticket_lifetime:g}")
    key = _configured_key(config, args.key)
    return issue_ticket(
        key.id,
        key.algorithm,
        _signing_key(config, key, args.private_key),
        player=player,
        jti=os.urandom(16).hex(),
        now=time.time(),
        lifetime=args.seconds,
        game=args.game,
    )


def _configured_key(config: Config, key_id: str | None) -> TicketKeyConfig:
    keys = {key.id: key for key in config.auth.ticket_keys}
    if not keys:
        raise _NoTicket("tickets are off: there are no auth.ticket_keys")
    if key_id is None and len(keys) == 1:
        return config.auth.ticket_keys[0]
    if key_id not in keys:
        raise _NoTicket("--key: must be one of " + ", ".join(keys))
    return keys[key_id]


def _signing_key(config: Config, key: TicketKeyConfig, pem_file: Path | None) -> SigningKey:
    try:
        configured: VerifyingKey = read_ticket_key(config.resolve(key.file), key.algorithm)
    except KeyFileError as error:
        raise _NoTicket(f"{key.file}: {error}") from None
    if isinstance(configured, bytes):
        if pem_file is not None:
            raise _NoTicket(f"--private-key: {key.algorithm} has none")
        return configured
    if pem_file is None:
        raise _NoTicket(f"{key.algorithm} needs --private-key")
    try:
        private = load_pem_private_key(pem_file.read_bytes(), password=None)
    except OSError as error:
        raise _NoTicket(f"{pem_file}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise _NoTicket(f"{pem_file}: is no private key in PEM without a passphrase") from None
    if (
        not isinstance(private, Ed25519PrivateKey | EllipticCurvePrivateKey)
        or private.public_key() != configured
    ):
        raise _NoTicket(f"{pem_file}: is not the private key of {key.id}")
    return private


def _seconds(text: str) -> float:
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("must be a positive number")
    return seconds

"""``gameproxy connect HOST:PORT``: a client to try things with."""

from __future__ import annotations

import argparse
import getpass
import json
import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import ValidationError
from twisted.internet.stdio import StandardIO

from gameproxy.cli.console import Console
from gameproxy.cli.contact import Contact
from gameproxy.cli.help_pages import ending
from gameproxy.cli.running import ProgramReactor, run_reactor
from gameproxy.client import Client
from gameproxy.config import ConfigError, FramingConfig, problems_in
from gameproxy.frame_format import FORMATS, FrameFormat
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.messages import RESERVED_BELOW, Auth, BadMessage, decode_object

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

CONNECT_TIMEOUT: Final = 10.0
TICKET_VARIABLE: Final = "GAMEPROXY_TICKET"
PASSWORD_VARIABLE: Final = "GAMEPROXY_PASSWORD"  # noqa: S105 - a name, no password
_LONGEST_TICKET: Final = 65_536


def add_parser(subparsers: Subparsers) -> None:
    """Add ``connect`` to the commands."""
    parser = subparsers.add_parser(
        "connect",
        help="a client to try things with",
        description="Connects to a proxy, prints what comes, and sends each line that is typed as a frame. Ends with"
        " the input (Ctrl-D).",
        epilog=ending(
            "gameproxy connect 127.0.0.1:7777 --guest ana",
            "echo 10 68 69 | gameproxy connect 127.0.0.1:7777 --ticket @ticket.txt --hex",
            "gameproxy connect play.example:25565 --dialect plain --format varint --hex",
            status="0 the session ended in order, 1 not let in or lost, 2 wrong usage",
        ),
    )
    add_player(parser)
    parser.add_argument(
        "--properties", type=_properties, metavar="JSON", help="an object for the game server"
    )
    parser.add_argument(
        "--dialect",
        choices=("native", "preamble", "plain"),
        default="native",
        help="that of the proxy (default: native); plain needs no name",
    )
    parser.add_argument(
        "--format",
        type=_format,
        default=FORMATS["int32"],
        metavar="FORMAT",
        help=f"the proxy's frames: {', '.join(FORMATS)}, or a JSON object with the keys of its [framing]"
        " (default: int32)",
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--type",
        type=_frame_type,
        metavar="BYTE",
        help="first byte of the frames sent, 0x10 to 0xff (default: 0x10 in native, none in the other dialects)",
    )
    how.add_argument(
        "--hex",
        action="store_true",
        help="lines are whole frames in hexadecimal, the byte of type included",
    )
    parser.add_argument(
        "--retry",
        action="store_true",
        help="connect again when the connection is lost or cannot be made, and when there is no place",
    )
    parser.set_defaults(run=run)


def add_player(parser: argparse.ArgumentParser) -> None:
    """Add where the proxy is, who the player is, and which game. :func:`auth_of` needs ``dialect`` and ``properties``
    too."""
    parser.add_argument(
        "address", type=_address, metavar="HOST:PORT", help="where the proxy listens"
    )
    who = parser.add_argument_group(
        "who you are",
        f"One of these; a ticket may also be in the environment, as {TICKET_VARIABLE}.",
    ).add_mutually_exclusive_group()
    who.add_argument("--guest", metavar="NAME", help="come as a guest")
    who.add_argument(
        "--ticket",
        type=_ticket,
        metavar="TICKET",
        help="come with a ticket: its text, @FILE, or - for the first line of the input",
    )
    who.add_argument(
        "--username",
        metavar="NAME",
        help=f"come with a password, which is asked for, or is in the environment as {PASSWORD_VARIABLE}",
    )
    parser.add_argument("--game", metavar="GAME", help="which game, where there are several")
    parser.set_defaults(usage_error=parser.error)


def run(args: argparse.Namespace) -> int:
    """Play: 0 after an orderly end, 1 if the client was not let in or the connection was lost."""
    return run_reactor(partial(_main, args, auth_of(args)))


async def _main(args: argparse.Namespace, auth: Auth, reactor: ProgramReactor) -> int:
    console = Console(sys.stdout.isatty())
    StandardIO(console, reactor=reactor)
    host, port = args.address
    client = Client(
        TwistedLoop(reactor),
        host,
        port,
        auth,
        format=args.format,
        dialect=args.dialect,
        connect_timeout=CONNECT_TIMEOUT,
    )
    contact = Contact(client, console, f"{host}:{port}", body_maker(args))
    reactor.addSystemEventTrigger("before", "shutdown", contact.end)
    return await contact.start(os.urandom if args.retry else None)


def auth_of(args: argparse.Namespace) -> Auth:
    """Who the command line, or the environment, says the client is; asks for a password if that is needed."""
    own = {"game": args.game, "properties": args.properties or "{}"}
    if args.guest is not None:
        return Auth("guest", name=args.guest, **own)
    if args.username is not None:
        password = os.environ.get(PASSWORD_VARIABLE)
        if password is None:
            password = getpass.getpass("Password: ")
        return Auth("password", username=args.username, password=password, **own)
    ticket = args.ticket or os.environ.get(TICKET_VARIABLE)
    if ticket is not None:
        return Auth("ticket", ticket=ticket, **own)
    if args.dialect != "plain":
        args.usage_error("one of the arguments --guest --ticket --username is required")
    return Auth("guest", name="")  # which is not sent


def body_maker(args: argparse.Namespace) -> Callable[[bytes], bytes]:
    """What makes a frame's body of a line; raises ValueError if it cannot."""
    if args.hex:
        return _from_hexadecimal
    kind = args.type
    if kind is None and args.dialect == "native":
        kind = RESERVED_BELOW
    start = b"" if kind is None else bytes([kind])
    return lambda line: start + line


def _from_hexadecimal(line: bytes) -> bytes:
    try:
        return bytes.fromhex(line.decode("ascii"))
    except ValueError:
        raise ValueError("a line must be bytes in hexadecimal, such as: 10 68 69") from None


def _address(text: str) -> tuple[str, int]:
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([^:\[\]]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise argparse.ArgumentTypeError("must be HOST:PORT, or [ADDRESS]:PORT for IPv6")
    return match[1] or match[2], int(match[3])


def _frame_type(text: str) -> int:
    try:
        value = int(text, 0)
    except ValueError:
        value = -1
    if not RESERVED_BELOW <= value <= 0xFF:
        raise argparse.ArgumentTypeError("must be 0x10 to 0xff")
    return value


def _ticket(text: str) -> str:
    if text == "-":
        return _first_line(0).decode("utf-8", "replace").strip()
    if not text.startswith("@"):
        return text
    try:
        with Path(text[1:]).open("rb") as file:
            return file.read(_LONGEST_TICKET).decode("utf-8", "replace").strip()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot be read: {error.strerror}") from error


def _first_line(descriptor: int) -> bytes:
    """The first line of an input, and not a byte more: the rest is for the game."""
    line = b""
    while len(line) < _LONGEST_TICKET and (byte := os.read(descriptor, 1)) not in (b"", b"\n"):
        line += byte
    return line


def _properties(text: str) -> str:
    try:
        decode_object(text.encode("utf-8", "surrogateescape"))
    except BadMessage as error:
        raise argparse.ArgumentTypeError(f"must be a JSON object: {error}") from error
    return text


def _format(text: str) -> FrameFormat:
    keys: object = {"format": text}
    if text.lstrip().startswith("{"):
        try:
            keys = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    try:
        return FramingConfig.model_validate(keys).frame_format
    except ValidationError as error:
        problems = "; ".join(str(ConfigError([problem])) for problem in problems_in(error))
        raise argparse.ArgumentTypeError(problems) from error

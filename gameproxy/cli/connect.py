"""``gameproxy connect HOST:PORT``: a client to try things with."""

from __future__ import annotations

import argparse
import getpass
import re
from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.stdio import StandardIO
from twisted.protocols.basic import LineOnlyReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from gameproxy.cli.running import ProgramReactor, run_reactor
from gameproxy.cli.terminal import printable
from gameproxy.gameclient import End, Ending, GameClient
from gameproxy.messages import RESERVED_BELOW, Auth, Status, Welcome

if TYPE_CHECKING:
    from gameproxy.cli.check import Subparsers

BYTES_SHOWN: Final = 64
"""Bytes of a frame that are printed."""
LINGER: Final = 1.0
"""Seconds to listen on when there is nothing more to send, so that what was piped in gets its answer."""
CONNECT_TIMEOUT: Final = 10.0


def add_parser(subparsers: Subparsers) -> None:
    """Add ``connect`` to the commands."""
    parser = subparsers.add_parser(
        "connect",
        help="a client to try things with",
        description="Connects to a proxy (dialect native, format int32), prints what comes, and sends each line that is"
        " typed as a frame. Ends with the input (Ctrl-D).",
    )
    parser.add_argument("address", type=_address, metavar="HOST:PORT")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--guest", metavar="NAME", help="come as a guest")
    who.add_argument("--ticket", metavar="TICKET", help="come with a ticket")
    who.add_argument("--username", metavar="NAME", help="come with a password, which is asked for")
    parser.add_argument("--game", metavar="GAME", help="which game, where there are several")
    parser.add_argument(
        "--type",
        type=_frame_type,
        default=RESERVED_BELOW,
        metavar="BYTE",
        help="first byte of the frames sent, 0x10 (the default) to 0xff",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Play: 0 after an orderly end, 1 if the client was not let in or the connection was lost."""
    return run_reactor(partial(_main, args, auth_of(args)))


async def _main(args: argparse.Namespace, auth: Auth, reactor: ProgramReactor) -> int:
    console = Console()
    StandardIO(console, reactor=reactor)
    client = TypedClient(reactor, auth, console, args.type)
    reactor.addSystemEventTrigger("before", "shutdown", client.end)
    host, port = args.address
    return await play(HostnameEndpoint(reactor, host, port, CONNECT_TIMEOUT), client)


@implementer(IHalfCloseableProtocol)
class Console(LineOnlyReceiver):
    """Standard input and output. Nothing is read until somebody wants the lines.

    :ivar client: whom lines go to.
    :ivar closed: fires when all is printed.
    """

    delimiter = b"\n"
    client: TypedClient
    transport: StandardIO

    def __init__(self) -> None:
        self.closed: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.pauseProducing()

    def say(self, text: str) -> None:
        """Print a line; what a terminal would obey is escaped."""
        self.transport.write(printable(text).encode("utf-8") + b"\n")

    def lineReceived(self, line: bytes) -> None:
        self.client.typed(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        self.say(f"lines may have {self.MAX_LENGTH} bytes")
        self.client.leave()

    def readConnectionLost(self) -> None:
        self.client.no_more_lines()

    def writeConnectionLost(self) -> None:
        """Whoever read this has gone; there is nobody to tell."""
        self.client.leave()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.closed.callback(None)


class TypedClient(GameClient):
    """A client whose frames a person types.

    :param frame_type: first byte of each.
    :ivar over: fires with how it ended.
    """

    def __init__(
        self, reactor: IReactorTime, auth: Auth, console: Console, frame_type: int
    ) -> None:
        super().__init__(reactor, auth)
        self.console = console
        console.client = self
        self._frame_type = bytes([frame_type])
        self._lingering: IDelayedCall | None = None
        self.over: Deferred[Ending] = Deferred()

    def waiting(self, status: Status) -> None:
        position = "" if status.position is None else f", position {status.position}"
        self.console.say(f"STATUS {status.state}{position}: {status.message}")

    def welcomed(self, welcome: Welcome) -> None:
        self.console.say(
            f"WELCOME {welcome.player} to {welcome.game} on {welcome.server},"
            f" session {welcome.session}"
        )
        # Who reads slowly is not written to: neither here nor there.
        self.transport.registerProducer(self.console.transport, True)  # type: ignore[attr-defined]  # an IConsumer too
        self.console.transport.registerProducer(self.transport, True)
        self.console.transport.resumeProducing()

    def settings(self, settings: bytes) -> None:
        self.console.say(f"SETTINGS {described(settings)}")

    def received(self, body: bytes) -> None:
        self.console.say(f"frame {described(body)}")

    def ended(self, ending: Ending) -> None:
        if self._lingering is not None and self._lingering.active():
            self._lingering.cancel()
        self.console.transport.unregisterProducer()
        self.over.callback(ending)

    def typed(self, line: bytes) -> None:
        """A person has typed a line."""
        self.send(self._frame_type + line)

    def no_more_lines(self) -> None:
        """There is nothing more to send."""
        self._lingering = self.reactor.callLater(LINGER, self.leave)

    def end(self) -> Deferred[None]:
        """Leave because the program ends.

        :return: fires when that is done.
        """
        if not self.connected:
            return succeed(None)
        self.leave()
        return self.console.closed


async def play(endpoint: IStreamClientEndpoint, client: TypedClient) -> int:
    """Connect, and play to the end.

    :return: the exit status.
    """
    console = client.console
    try:
        await connectProtocol(endpoint, client)
    except (ConnectError, OSError, ValueError) as error:  # ValueError: no such name can exist
        console.say(f"cannot connect: {error}")
        ending = None
    else:
        ending = await client.over
        console.say(f"{_HEADINGS[ending.end]} {ending.code}: {ending.message}".rstrip(": "))
    console.transport.loseConnection()
    await console.closed
    return 0 if ending is not None and ending.end in (End.LEFT, End.CLOSED) else 1


_HEADINGS: Final = {
    End.LEFT: "you",
    End.CLOSED: "CLOSE",
    End.REFUSED: "ERROR",
    End.LOST: "lost:",
}


def described(body: bytes) -> str:
    """A body for people: its size, its first bytes in hexadecimal, and as text."""
    start = body[:BYTES_SHOWN]
    more = "..." if len(body) > BYTES_SHOWN else ""
    text = start.decode("utf-8", "replace")
    return f"of {len(body)} bytes: {start.hex(' ')}{more}  {text}{more}"


def auth_of(args: argparse.Namespace) -> Auth:
    """Who the command line says the client is; asks for a password if that is needed."""
    if args.guest is not None:
        return Auth("guest", name=args.guest, game=args.game)
    if args.ticket is not None:
        return Auth("ticket", ticket=args.ticket, game=args.game)
    password = getpass.getpass("Password: ")
    return Auth("password", username=args.username, password=password, game=args.game)


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

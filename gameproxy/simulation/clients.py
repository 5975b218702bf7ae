"""Players: clients of the dialect ``native``, each with a plan, which check all that comes back from an echoing game.

They are written from the protocol alone and run on any reactor, a simulated one or a real one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.protocol import ClientFactory, Protocol
from twisted.python.failure import Failure

from gameproxy.framing import FORMATS, FrameError, Framer
from gameproxy.messages import (
    OWN_FRAME_MAX,
    RESERVED_BELOW,
    Auth,
    BadMessage,
    FrameType,
    Notice,
    decode_notice,
    decode_status,
    decode_welcome,
)
from gameproxy.simulation.chance import stream

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

_FORMAT: Final = FORMATS["int32"]
CONNECT_TIMEOUT: Final = 30.0
PHASES: Final = ("connecting", "authenticating", "waiting", "playing", "ended")
"""The states of a client, in their order."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a client does.

    :param frames: how many frames it sends.
    :param size: bytes of each, with what names it.
    :param gap: seconds between two.
    :param stays: whether it stays when all have come back, until it is told to leave.
    :param leaving: how it leaves: ``close`` (CLOSE, then the proxy closes), ``end`` (the end of the stream) or
        ``reset``.
    :param hangs_up: the phase in which it leaves before its time.
    :param auth_delay: seconds from the connection to AUTH; ``None``: it never says who it is.
    :param sends: what it sends instead of AUTH: ``garbage`` or ``oversize``; or ``forged``: when it plays, a frame that
        only a game server may send.
    :param early: how many of its frames it sends with AUTH, before it is let in.
    :param reads: whether it reads what comes once it is let in.
    """

    frames: int = 3
    size: int = 32
    gap: float = 0.02
    stays: bool = False
    leaving: str = "close"
    hangs_up: str | None = None
    auth_delay: float | None = 0.0
    sends: str | None = None
    reads: bool = True
    early: int = 0


class Client:
    """A player.

    :param number: who it is: its frames say so.
    :param told: called with each thing that happens to it, in words.
    :param auth: what it says who it is, or a function that gives that, asked at each connection; ``None``: a guest.
    :param seed: of what it draws.
    :param source: the address that it connects from; ``None``: its machine's.
    :param left_out: whether it never connects, whoever asks for it.
    :ivar state: ``idle`` at first, then one of ``PHASES``.
    :ivar sent: frames sent so far.
    :ivar echoed: how many of them have come back, in order.
    :ivar faults: what it saw that it should not have seen.
    """

    def __init__(
        self,
        reactor: Any,
        address: tuple[str, int],
        number: int,
        name: str,
        plan: Plan,
        told: Callable[..., object],
        auth: Auth | Callable[[], Auth] | None = None,
        source: str | None = None,
        left_out: bool = False,
        seed: int = 0,
    ) -> None:
        self.reactor = reactor
        self.address = address
        self.number = number
        self.name = name
        self.plan = plan
        self.left_out = left_out
        self.auth = auth or Auth("guest", name=name)
        self.state = "idle"
        self.server = ""
        self.session = ""
        self.sent = 0
        self.echoed = 0
        self.was_queued = False
        self.was_welcomed = False
        self.ending: str | None = None
        self.faults: list[str] = []
        self.connects = 0
        self._told = told
        self._source = source
        self._seed = seed
        self._protocol: _Connection | None = None
        self._connector: Any = None
        self._timers: list[IDelayedCall] = []

    def connect(self) -> None:
        """Come."""
        if self.left_out:
            return
        if self.state not in ("idle", "ended"):
            raise ValueError(f"client {self.number} is {self.state}")
        self.connects += 1
        self._told("comes", self.number)
        self.state = "connecting"
        self.sent = self.echoed = 0
        self.was_queued = self.was_welcomed = False
        self.ending = None
        host, port = self.address
        self._connector = self.reactor.connectTCP(
            host,
            port,
            _Factory(self),
            timeout=CONNECT_TIMEOUT,
            bindAddress=None if self._source is None else (self._source, 0),
        )
        self._maybe_hang_up()

    def disconnect(self, how: str | None = None) -> None:
        """Leave, in whatever state it is.

        :param how: ``close``, ``end`` or ``reset``; ``None``: as its plan says.
        """
        protocol = self._protocol
        if self.state == "connecting":
            self._connector.disconnect()
        elif protocol is not None and protocol.transport is not None:
            how = how or self.plan.leaving
            if how == "close" and self.state == "playing":
                protocol.send(Notice("left", "").encode(FrameType.CLOSE))
                self._later(5.0, protocol.transport.abortConnection)
            elif how == "reset":
                protocol.transport.abortConnection()
            else:
                protocol.transport.loseConnection()

    def read(self) -> None:
        """Read what comes, if it did not."""
        if self._protocol is not None:
            self._protocol.transport.resumeProducing()

    def chance(self, what: str) -> float:
        """A number from 0 to 1 that is this client's own for a purpose, whoever else there is."""
        return stream(self._seed, what, self.number).getrandbits(32) / 2**32

    @property
    def has_ended(self) -> bool:
        """Whether it has come and gone, or never comes."""
        return self.left_out or (self.state == "ended" and self.connects > 0)

    @property
    def is_done(self) -> bool:
        """Whether all its frames have come back."""
        return self.was_welcomed and self.echoed >= self.plan.frames

    # What its connection tells

    def connected(self, protocol: _Connection) -> None:
        self._protocol = protocol
        self._told("online", self.number, protocol.transport.getHost().port)
        self._enter("authenticating")
        plan = self.plan
        if plan.sends == "garbage":
            protocol.transport.write(bytes(range(200, 256)) * 4)
        elif plan.sends == "oversize":
            protocol.transport.write((OWN_FRAME_MAX + 1).to_bytes(4, "big") + b"\x01")
        elif plan.auth_delay is not None:
            self._later(plan.auth_delay, lambda: self._say_who(protocol))

    def frame(self, body: bytes) -> None:
        kind = body[0] if body else RESERVED_BELOW
        if kind == FrameType.STATUS and not self.was_welcomed:
            status = decode_status(body[1:])
            self.was_queued = True
            self._told("status", self.number, status.state, status.position)
            if self.state == "authenticating":
                self._enter("waiting")
        elif kind == FrameType.WELCOME and not self.was_welcomed:
            welcome = decode_welcome(body[1:])
            self.was_welcomed = True
            self.server, self.session = welcome.server, welcome.session
            self._told("welcome", self.number, welcome.server, welcome.session[:8])
            self._enter("playing")
            if not self.plan.reads and self._protocol is not None:
                self._protocol.transport.pauseProducing()
            self._play()
        elif kind == (FrameType.CLOSE if self.was_welcomed else FrameType.ERROR):
            self.ending = decode_notice(body[1:]).code
        elif kind >= RESERVED_BELOW and self.was_welcomed:
            self._echo(body)
        elif kind != FrameType.SETTINGS:
            self.faults.append(f"a frame of type {kind:#04x} while {self.state}")

    def cut_short(self, rest: bytes) -> None:
        """The stream has ended within a frame, of which this came."""
        frame = _FORMAT.encode(frame_of(self.number, self.echoed, self.plan.size))
        if self.was_welcomed and rest[4:5] == frame[4:5] and not frame.startswith(rest):
            self.faults.append(f"the end of the stream is no part of frame {self.echoed}")

    def gone(self, why: str) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        self._timers.clear()
        self._protocol = None
        self.state = "ended"
        self._told("gone", self.number, self.ending or why, self.echoed)

    # What it does

    def _say_who(self, protocol: _Connection) -> None:
        auth = self.auth if isinstance(self.auth, Auth) else self.auth()
        protocol.send(auth.encode())
        for _ in range(min(self.plan.early, self.plan.frames)):
            self._send_next(protocol)

    def _enter(self, state: str) -> None:
        self.state = state
        self._maybe_hang_up()

    def _maybe_hang_up(self) -> None:
        if self.plan.hangs_up == self.state:
            self._later(self.plan.gap, self.disconnect)

    def _play(self) -> None:
        if self.state != "playing" or self._protocol is None:
            return
        if self.plan.sends == "forged" and self.sent == self.plan.frames // 2:
            self._protocol.send(bytes([FrameType.KICK]) + b'{"code":"kicked","message":"go"}')
        if self.sent < self.plan.frames:
            self._send_next(self._protocol)
            self._later(self.plan.gap, self._play)
        elif self.plan.frames == 0 and not self.plan.stays:
            self.disconnect()

    def _send_next(self, protocol: _Connection) -> None:
        protocol.send(frame_of(self.number, self.sent, self.plan.size))
        self.sent += 1

    def _echo(self, body: bytes) -> None:
        if self.echoed >= self.sent or body != frame_of(self.number, self.echoed, self.plan.size):
            self.faults.append(f"frame {self.echoed} did not come back as it was sent")
            return
        self.echoed += 1
        if self.echoed == self.plan.frames and not self.plan.stays:
            self.disconnect()

    def _later(self, delay: float, call: Callable[[], object]) -> None:
        self._timers.append(self.reactor.callLater(delay, call))


class Clients(Sequence[Client]):
    """Some clients, in the order in which they were made."""

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients
        self._still_there: Client | None = None

    def __getitem__(self, index: Any) -> Any:
        found = self._clients[index]
        return Clients(found) if isinstance(index, slice) else found

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Client]:
        return iter(self._clients)

    @property
    def have_ended(self) -> bool:
        """Whether all have come and gone, or never come."""
        # This is asked after each event: who was there the last time is asked first.
        if self._still_there is None or self._still_there.has_ended:
            self._still_there = next((one for one in self._clients if not one.has_ended), None)
        return self._still_there is None

    def connect_all(self) -> None:
        """All come, in their order."""
        for client in self._clients:
            client.connect()

    def disconnect_all(self, how: str | None = None) -> None:
        """All leave, in their order."""
        for client in self._clients:
            client.disconnect(how)


def frame_of(number: int, count: int, size: int) -> bytes:
    """A client's frame: a byte of type, who sent it, which it is, and filling that depends on both."""
    start = b"\x10" + number.to_bytes(4, "big") + count.to_bytes(4, "big")
    return start.ljust(size, bytes([(number * 31 + count) & 0xFF]))


def sender_of(body: bytes) -> tuple[int, int]:
    """Whose frame it is, and which: as :func:`frame_of` made it.

    :raises ValueError: it is not such a frame.
    """
    number, count = int.from_bytes(body[1:5], "big"), int.from_bytes(body[5:9], "big")
    if body != frame_of(number, count, len(body)):
        raise ValueError("not a frame of a client's")
    return number, count


class _Factory(ClientFactory):
    noisy = False

    def __init__(self, client: Client) -> None:
        self._client = client

    def buildProtocol(self, addr: object) -> _Connection:
        return _Connection(self._client)

    def clientConnectionFailed(self, connector: object, reason: Failure) -> None:
        self._client.gone(type(reason.value).__name__)


class _Connection(Protocol):
    transport: Any

    def __init__(self, client: Client) -> None:
        self._client = client
        self._framer = Framer(_FORMAT, _FORMAT.max_frame)

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        self._client.connected(self)

    def dataReceived(self, data: bytes) -> None:
        self._framer.feed(data)
        try:
            for body in self._framer.frames():
                self._client.frame(body)
        except (FrameError, BadMessage) as error:
            self._client.faults.append(f"not the protocol: {error}")
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        with suppress(FrameError):
            self._client.cut_short(self._framer.take_rest())
        self._client.gone(type(reason.value).__name__ if reason is not None else "lost")

    def send(self, body: bytes) -> None:
        self.transport.write(_FORMAT.encode(body))

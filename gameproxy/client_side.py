"""The side of the clients: what they send before they relay, and what they are told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address, ip_address
from typing import Final

from twisted.internet.interfaces import (
    IAddress,
    IPushProducer,
    IReactorTime,
    ISSLTransport,
    ITransport,
)
from twisted.internet.protocol import ServerFactory
from zope.interface import implementer

from gameproxy.dialect import Dialect
from gameproxy.framing import FrameError, FrameFormat, Framer, FrameScanner
from gameproxy.interfaces import Entropy, Peer, Waiting
from gameproxy.messages import (
    OWN_FRAME_MAX,
    Auth,
    BadMessage,
    FrameType,
    UnsupportedVersion,
    Welcome,
    decode_auth,
)
from gameproxy.proxy_header import Passed
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.session import Session
from gameproxy.wire import Side, Wire

EARLY_MAX: Final = 65536
"""Bytes that one client may send between AUTH and WELCOME."""
ALL_EARLY_MAX: Final = 64 * 1024 * 1024
"""Bytes that all clients together may have sent so."""
LEAST_IDLE: Final = 30
"""Whole seconds of silence after which a client is asked at the earliest whether it is still there."""
IDLE_SPREAD: Final = 31
"""How many such times there are, a second apart."""


class EarlyBytes:
    """How much all clients together have sent before they relay."""

    def __init__(self, limit: int = ALL_EARLY_MAX) -> None:
        self.limit = limit
        self._left = limit

    @property
    def kept(self) -> int:
        """How many bytes are kept now."""
        return self.limit - self._left

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more; if so, it is taken."""
        if size > self._left:
            return False
        self._left -= size
        return True

    def give_back(self, size: int) -> None:
        """So many bytes are kept no more."""
        self._left += size


@implementer(IPushProducer)
class ClientSide:
    """One client until it relays: finds AUTH in what it sends, keeps what comes early, and tells it how it stands.

    :param wire: a connection that has just been made.
    :param all_early: shared by all clients.
    :ivar session: its session; to be set at once.
    """

    session: Session

    def __init__(
        self, wire: Wire, format: FrameFormat, dialect: Dialect, all_early: EarlyBytes
    ) -> None:
        self.wire = wire
        self.gone = wire.gone
        self._dialect = dialect
        self._all_early = all_early
        self._expects_auth = dialect.begins_with_auth
        self._framer = Framer(format, OWN_FRAME_MAX)
        self._scanner = FrameScanner(format, dialect.early_verdicts)
        self._begun = False
        self._early = bytearray()
        self._early_size = 0
        self._is_reading = True
        wire.holder = self
        wire.set_producer(self)

    # What the wire calls

    def data_received(self, data: bytes) -> None:
        if not self._expects_auth:
            if self._keep(data) and not self._begun and self._scanner.frames:
                self._begin(Auth("guest", name=self.session.id[:8]))
            return
        self._framer.feed(data)
        try:
            body = next(self._framer.frames(), None)
            if body is None:
                return
            if body[:1] != bytes([FrameType.AUTH]):
                raise FrameError("the first frame must be AUTH")
            auth = decode_auth(body[1:])
        except UnsupportedVersion:
            self._refuse(CloseReason.UNSUPPORTED_VERSION)
            return
        except (FrameError, BadMessage) as error:
            self._refuse(CloseReason.PROTOCOL_ERROR, f"AUTH was expected: {error}.")
            return
        self._expects_auth = False
        # First what came with AUTH: when the session begins, it may be handed over at once.
        if self._keep(self._framer.take_rest()):
            self._begin(auth)

    def stream_ended(self) -> None:
        self._forget_early()
        self.session.inputs.client_ended()

    # What its session calls

    @property
    def fault(self) -> str:
        return self.wire.fault

    @property
    def tls_version(self) -> str:
        return self.wire.tls_version

    def waiting(self, waiting: Waiting) -> None:
        self._tell_status(self._dialect.waiting(waiting))

    def connecting(self) -> None:
        self._tell_status(self._dialect.connecting())

    def welcome(self, welcome: Welcome) -> None:
        self.wire.write(self._dialect.welcome(welcome))

    def refuse(self, refusal: Refusal) -> None:
        self._forget_all()
        self.wire.end(self._dialect.error(refusal))

    def leave(self) -> None:
        self._forget_all()
        self.wire.end()

    def hand_over(self) -> Side:
        """Give up the client to a relay, with what it has sent early."""
        side = Side(self.wire, self._scanner, bytes(self._early))
        self._forget_early()
        del self._framer, self._scanner  # idle sessions are many, and need no more than this
        return side

    def probe(self) -> None:
        """Find out now whether the client is still there."""
        self.wire.probe()

    # What its transport calls: whoever does not read what it is told is told no more

    def pauseProducing(self) -> None:
        self._is_reading = False

    def resumeProducing(self) -> None:
        self._is_reading = True

    def stopProducing(self) -> None:
        self._is_reading = False

    def _tell_status(self, status: bytes) -> None:
        if self._is_reading:
            self.wire.write(status)

    def _begin(self, auth: Auth) -> None:
        self._begun = True
        self.session.inputs.authenticate(auth)

    def _refuse(self, reason: CloseReason, message: str | None = None) -> None:
        self.session.inputs.end(Refusal(reason, message))

    def _keep(self, data: bytes) -> bool:
        """Keep what came early; or refuse, and say so, what may not come or is too much."""
        self._early += self._scanner.scan(data)
        if self._scanner.stopped is not None:
            message = f"Before WELCOME came {self._scanner.stopped}."
            self._refuse(CloseReason.PROTOCOL_ERROR, message)
        elif self._early_size + len(data) > EARLY_MAX:
            message = f"More than {EARLY_MAX} bytes came before WELCOME."
            self._refuse(CloseReason.PROTOCOL_ERROR, message)
        elif not self._all_early.take(len(data)):
            self._refuse(CloseReason.PROXY_FULL)
        else:
            self._early_size += len(data)
            return True
        return False

    def _forget_all(self) -> None:
        """Keep nothing of what came: in a flood those who are being refused are many."""
        self._forget_early()
        self._framer = Framer(self._dialect.format, OWN_FRAME_MAX)

    def _forget_early(self) -> None:
        self._all_early.give_back(self._early_size)
        self._early_size = 0
        self._early.clear()


class ClientFactory(ServerFactory):
    """Accepts clients.

    :param has_room: whether another connection can be taken at all; else it is closed without a word.
    :param accept: called with each connection that is made, and where its client comes from.
    """

    noisy = False

    def __init__(
        self,
        clock: IReactorTime,
        has_room: Callable[[], bool],
        accept: Callable[[Wire, Peer], None],
    ) -> None:
        self._clock = clock
        self._has_room = has_room
        self._accept = accept

    def buildProtocol(self, addr: IAddress | None) -> Wire | None:
        if not self._has_room():
            return None
        passed = addr if isinstance(addr, Passed) else None
        return Wire(self._clock, partial(self._connected, passed))

    def _connected(self, passed: Passed | None, wire: Wire) -> None:
        self._accept(wire, peer_of(wire.transport, passed))


def idle_time(entropy: Entropy) -> int:
    """Whole seconds of silence after which one client is asked whether it is still there: for each as chance has it, so
    that those who fell silent together are not asked together."""
    return LEAST_IDLE + entropy(1)[0] % IDLE_SPREAD


def peer_of(transport: ITransport, passed: Passed | None = None) -> Peer:
    """Where the client on a transport comes from.

    :param passed: where that is, if whoever has connected passes it on.
    """
    secure = bool(ISSLTransport.providedBy(transport))
    if passed is not None:
        return Peer(passed.host, passed.port, secure, passed.local_host, passed.local_port)
    address, port = _ip_and_port(transport.getPeer())
    local_address, local_port = _ip_and_port(transport.getHost())
    return Peer(address, port, secure, local_address, local_port)


def _ip_and_port(address: IAddress) -> tuple[str, int]:
    host = getattr(address, "host", None)
    if host is None:  # no TCP: a UNIX socket has no address
        return "", 0
    ip = ip_address(host.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return str(ip), address.port  # type: ignore[attr-defined]  # IPv4Address and IPv6Address have it

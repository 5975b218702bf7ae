"""The side of the game servers: dialling one, and the proof that each asks of the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from gameproxy.dialect import Dialect
from gameproxy.framing import FrameError, FrameFormat, Framer, FrameScanner
from gameproxy.handshake import NONCE_BYTES, HandshakeError, ProxyHandshake
from gameproxy.interfaces import Attempt, AttemptFailed, Entropy, Introduction, Reactor, Slot
from gameproxy.messages import OWN_FRAME_MAX, Admit, Notice
from gameproxy.proxy_header import encode_v2
from gameproxy.reasons import CloseReason
from gameproxy.sites import LATE, SERVER_LATE_ADMIT, SERVER_LATE_DIAL, Disturbs, never
from gameproxy.wire import Side, Wire

_BUSY = ("full", "draining")
"""Codes of REFUSED that say: I am well, but have no room."""


@dataclass(frozen=True, slots=True)
class Dialling:
    """How game servers are dialled.

    :param admission: ``handshake``, ``proxy-v2`` or ``none``.
    :param connect_timeout: seconds until the connection is made.
    :param handshake_timeout: seconds from there to ADMITTED.
    :param disturbs: asked at the site of dialling.
    :param secure: called with a game server's id and endpoint; gives that endpoint, with TLS if it is to be dialled so.
    """

    reactor: Reactor
    entropy: Entropy
    format: FrameFormat
    dialect: Dialect
    admission: str
    connect_timeout: float
    handshake_timeout: float
    disturbs: Disturbs = never
    secure: Callable[[str, IStreamClientEndpoint], IStreamClientEndpoint] = (
        lambda server, endpoint: endpoint
    )


class ServerSide(Attempt):
    """One attempt to be admitted by the game server of a slot. It begins to dial when it is made."""

    def __init__(self, dialling: Dialling, slot: Slot, introduction: Introduction) -> None:
        self.admitted: Deferred[Attempt] = Deferred()
        self.gone: Deferred[None] = Deferred()
        self._dialling = dialling
        self._introduction = introduction
        self._wire: Wire | None = None
        self._deadline: IDelayedCall | None = None
        self._over = False  # admitted, failed or abandoned
        self._heard = False
        self._framer = Framer(dialling.format, OWN_FRAME_MAX)
        admit = Admit(
            session=introduction.session,
            player=introduction.player,
            address=introduction.peer.address,
            game=slot.game,
            server=slot.server,
            nonce="",
            proxy_nonce=dialling.entropy(NONCE_BYTES).hex(),
            properties=introduction.properties,
        )
        self._handshake = ProxyHandshake(admit, slot.key)
        self._connecting = self._dial(slot)
        self._connecting.addTimeout(dialling.connect_timeout, dialling.reactor)
        self._connecting.addErrback(self._not_reached)

    def abandon(self) -> None:
        self._over = True
        self.admitted.cancel()
        self._stop_deadline()
        if self._wire is None:
            self._connecting.cancel()
        else:
            self._wire.end()

    def hand_over(self) -> Side:
        assert self._wire is not None
        scanner = FrameScanner(self._dialling.format, self._dialling.dialect.server_verdicts)
        early = scanner.scan(self._framer.take_rest())
        # Idle sessions are many, and need no more than this.
        del self._framer, self._handshake, self._introduction
        return Side(self._wire, scanner, early)

    # What the wire calls

    def data_received(self, data: bytes) -> None:
        self._heard = True
        self._framer.feed(data)
        try:
            while not self._over and (body := next(self._framer.frames(), None)) is not None:
                self._receive(body)
        except (FrameError, HandshakeError) as error:
            self._fail(CloseReason.HANDSHAKE_FAILED, f"{error}")

    def stream_ended(self) -> None:
        assert self._wire is not None
        if self._wire.fault and not self._heard:
            # Since TLS 1.3 who dials has finished before the other end has seen its certificate.
            self._fail(CloseReason.SERVER_UNREACHABLE, self._wire.fault)
        else:
            self._fail(CloseReason.HANDSHAKE_FAILED, "it closed the connection before ADMITTED")

    def _dial(self, slot: Slot) -> Deferred[IProtocol]:
        endpoint = self._dialling.secure(slot.server, self._endpoint(slot))
        dial = partial(endpoint.connect, _WireFactory(self._make_wire))
        if self._dialling.disturbs(SERVER_LATE_DIAL):
            return deferLater(self._dialling.reactor, LATE).addCallback(lambda _: dial())
        return dial()

    def _endpoint(self, slot: Slot) -> IStreamClientEndpoint:
        reactor, timeout = self._dialling.reactor, self._dialling.connect_timeout
        if isIPAddress(slot.host):
            return TCP4ClientEndpoint(reactor, slot.host, slot.port, timeout)
        if isIPv6Address(slot.host):
            return TCP6ClientEndpoint(reactor, slot.host, slot.port, timeout)
        return HostnameEndpoint(reactor, slot.host, slot.port, timeout)

    def _make_wire(self) -> Wire:
        return Wire(self._dialling.reactor, self._connected)

    def _not_reached(self, failure: Failure) -> None:
        self.gone.callback(None)
        self._fail(CloseReason.SERVER_UNREACHABLE, failure.getErrorMessage())

    def _connected(self, wire: Wire) -> None:
        self._wire = wire
        wire.holder = self
        wire.gone.chainDeferred(self.gone)
        dialling = self._dialling
        if dialling.admission == "handshake":
            self._deadline = dialling.reactor.callLater(dialling.handshake_timeout, self._too_late)
            return
        if dialling.admission == "proxy-v2":
            about = self._introduction
            wire.write(encode_v2(about.peer, about.session, about.tls_version))
        self._succeed()

    def _receive(self, body: bytes) -> None:
        answer = self._handshake.receive(body)
        if answer is None:
            self._succeed()
        elif isinstance(answer, Notice):
            busy = answer.code in _BUSY
            self._fail(CloseReason.REFUSED, answer.message, busy)
        elif len(answer) > self._dialling.format.largest:
            # The client's doing, so the game server must not be blamed: it is not another's turn either.
            message = "Your name and properties are too long for this game's frames."
            self._fail(CloseReason.REFUSED, message)
        elif self._dialling.disturbs(SERVER_LATE_ADMIT):
            self._dialling.reactor.callLater(LATE, self._write, answer)
        else:
            self._write(answer)

    def _write(self, body: bytes) -> None:
        if not self._over:
            assert self._wire is not None
            self._wire.write(self._dialling.format.encode(body))

    def _too_late(self) -> None:
        self._fail(CloseReason.HANDSHAKE_FAILED, "it did not answer in time")

    def _succeed(self) -> None:
        self._over = True
        self._stop_deadline()
        self.admitted.callback(self)

    def _fail(self, reason: CloseReason, message: str, busy: bool = False) -> None:
        if self._over:
            return
        self._over = True
        self._stop_deadline()
        if self._wire is not None:
            self._wire.end()
        self.admitted.errback(AttemptFailed(reason, message, busy))

    def _stop_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()


class _WireFactory(Factory):
    noisy = False

    def __init__(self, make_wire: Callable[[], Wire]) -> None:
        self._make_wire = make_wire

    def buildProtocol(self, addr: IAddress | None) -> Wire:
        return self._make_wire()

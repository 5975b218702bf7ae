"""The reference relay: frames move between any two Twisted transports.

Bytes are passed on as they come, as far as the frame scanner allows; no frame is gathered. Each transport is the
producer of the other, so that a reader that is slow stops the other side's writing, and nothing piles up here beyond
what a transport buffers before it says stop (64 KiB) and one read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from twisted.internet.interfaces import IReactorTime

from gameproxy.dialect import Dialect
from gameproxy.framing import Control, FrameError
from gameproxy.interfaces import Outcome, Relay, Traffic
from gameproxy.messages import BadMessage, FrameType, decode_kick, decode_notice
from gameproxy.reasons import ADVICE, CloseReason
from gameproxy.relay.lane import Lane
from gameproxy.relay.meter import NO_LIMITS, Exceeded, IdleWatch, RelayLimits
from gameproxy.sites import RELAY_SMALL_BUFFERS, Disturbs, never
from gameproxy.wire import Side, Wire

SMALL_BUFFER: Final = 256
"""Bytes of a buffer that is to be small."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What is the same for all relays of a proxy.

    :param stall_timeout: seconds for which a side may take nothing while more waits for it.
    :param limits: what a client may send.
    :param disturbs: asked at its site.
    """

    dialect: Dialect
    clock: IReactorTime
    stall_timeout: float
    limits: RelayLimits = NO_LIMITS
    disturbs: Disturbs = never


class TransportRelay(Relay):
    """Relays between a client and a game server from :meth:`start` until either side ends; then it ends both.

    :param on_end: called once, with why. Both connections are being ended then.
    """

    def __init__(
        self,
        client: Side,
        server: Side,
        terms: Terms,
        on_end: Callable[[Outcome], None],
    ) -> None:
        self._terms = terms
        self._on_end = on_end
        self._ended = False
        self._client = client.wire
        self._server = server.wire
        if terms.disturbs(RELAY_SMALL_BUFFERS):
            self._client.keep_little(SMALL_BUFFER)
            self._server.keep_little(SMALL_BUFFER)
        self._idle_watch: IdleWatch | None = None
        meter = terms.limits.meter(client.scanner)
        clock, stall_timeout = terms.clock, terms.stall_timeout
        self._from_client = Lane(self, client, server.wire, clock, stall_timeout, meter)
        self._from_server = Lane(self, server, client.wire, clock, stall_timeout)

    @property
    def plane(self) -> str:
        return "transport"

    @property
    def traffic(self) -> Traffic:
        client, server = self._from_client.scanner, self._from_server.scanner
        return Traffic(client.frames, client.size, server.frames, server.size)

    def start(self) -> None:
        self._from_client.scanner.verdicts = self._terms.dialect.client_verdicts
        self._from_server.scanner.verdicts = self._terms.dialect.server_verdicts
        self._from_client.connect()
        self._from_server.connect()
        if self._terms.limits.idle is not None:
            idle, sent = self._terms.limits.idle, self._sent_by_client
            self._idle_watch = IdleWatch(self._terms.clock, idle, sent, self._client_idle)
        self._from_client.begin()
        self._from_server.begin()

    def close(self, reason: CloseReason, message: str) -> None:
        self._end_both(reason, message)

    def _end_both(self, reason: CloseReason, message: str, limit: str = "") -> None:
        last_words = self._terms.dialect.close(reason, message)
        self._finish(Outcome(reason, message, limit=limit), last_words, last_words)

    # What the lanes call

    def source_ended(self, lane: Lane) -> None:
        """A side ended its stream or broke; what it had sent has been passed on."""
        self._side_lost(of_client=lane is self._from_client)

    def sink_stalled(self, lane: Lane) -> None:
        """A side takes nothing of what is written to it."""
        self._side_lost(of_client=lane is self._from_server)

    def _side_lost(self, of_client: bool) -> None:
        reason = CloseReason.CLIENT_LOST if of_client else CloseReason.SERVER_LOST
        last_words = self._terms.dialect.close(reason, ADVICE[reason])
        to_client, to_server = (b"", last_words) if of_client else (last_words, b"")
        lost = self._client if of_client else self._server
        self._finish(Outcome(reason, ADVICE[reason]), to_client, to_server, over=lost)

    def scan_stopped(self, lane: Lane, stopped: Control | FrameError) -> None:
        """A side sent a frame for the proxy, or a bad one."""
        if isinstance(stopped, Exceeded):
            self._end_both(CloseReason.LIMIT_EXCEEDED, _sentence(stopped), stopped.limit)
            return
        try:
            if isinstance(stopped, FrameError):
                raise stopped
            if lane is self._from_client:
                self._client_closes(stopped.body)
            elif stopped.body[0] == FrameType.CLOSE:
                self._server_closes(stopped.body)
            else:
                self._server_kicks(stopped.body)
        except (FrameError, BadMessage) as error:
            self.close(CloseReason.PROTOCOL_ERROR, _sentence(error))

    def _sent_by_client(self) -> int | None:
        return None if self._from_client.is_slow else self.traffic.client_bytes

    def _client_idle(self) -> None:
        self._terms.limits.counts.count("idle_seconds")
        if self._terms.limits.idle_enforced:
            message = f"Nothing was sent for {self._terms.limits.idle:g} s. Connect again."
            self.close(CloseReason.IDLE, message)

    def _client_closes(self, body: bytes) -> None:
        message = decode_notice(body[1:]).message
        outcome = Outcome(CloseReason.LEFT, "The client left.")
        last_words = self._terms.dialect.close(CloseReason.LEFT, message)
        self._finish(outcome, b"", last_words, over=self._client)

    def _server_closes(self, body: bytes) -> None:
        code = decode_notice(body[1:]).code
        try:
            reason = CloseReason(code)
        except ValueError:  # a word of the game's own: the client gets it, we count a leave
            reason = CloseReason.LEFT
        outcome = Outcome(reason, "The game server closed the session.")
        self._finish(outcome, self._terms.dialect.close_as_sent(body), b"", over=self._server)

    def _server_kicks(self, body: bytes) -> None:
        kick = decode_kick(body[1:])
        last_words = self._terms.dialect.close(CloseReason.KICKED, kick.message)
        outcome = Outcome(CloseReason.KICKED, kick.message, kick.ban_for)
        self._finish(outcome, last_words, last_words)

    def _finish(
        self, outcome: Outcome, to_client: bytes, to_server: bytes, over: Wire | None = None
    ) -> None:
        """End both sides.

        :param to_client: last words for the client, said only if its stream stands between two frames.
        :param to_server: the same for the game server.
        :param over: the side that is lost or has said CLOSE: what had come for it is flushed for a moment only.
        """
        if self._ended:
            return
        self._ended = True
        if self._idle_watch is not None:
            self._idle_watch.cancel()
        to_server = self._from_client.let_go(to_server)
        to_client = self._from_server.let_go(to_client)
        # A game server that was told, or has said it, closes by itself.
        server_closes = bool(to_server) or (
            over is self._server and outcome.reason is not CloseReason.SERVER_LOST
        )
        self._end(self._server, to_server, over is self._server, server_closes)
        self._end(self._client, to_client, over is self._client)
        self._on_end(outcome)

    def _end(
        self, wire: Wire, last_words: bytes, is_over: bool, peer_closes_first: bool = False
    ) -> None:
        """End one side, behind all that was passed on to it."""
        stall_timeout = None if is_over else self._terms.stall_timeout
        wire.end(last_words, peer_closes_first=peer_closes_first, stall_timeout=stall_timeout)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}."

"""What a session does on its way, one method for each state that it comes to; which is next, the machine decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Never, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from gameproxy.interfaces import (
    Attempt,
    AttemptFailed,
    Client,
    Identity,
    Introduction,
    Outcome,
    Peer,
    Relay,
    SessionRecord,
    Slot,
    SlotRequest,
    Surroundings,
    Traffic,
    Waiting,
)
from gameproxy.messages import Auth, Welcome
from gameproxy.phases import Phase
from gameproxy.reasons import ADVICE, CloseReason, Refusal
from gameproxy.stand_ins import NoAttempt, NoRelay

INTERNAL_RETRY_AFTER = 5.0
"""Seconds after which a client may try again when something failed here."""

T = TypeVar("T")
Cause = Identity | AttemptFailed
"""Why a session looks for a slot: it has none yet, or had one that was of no use."""


class Inputs(Protocol):
    """What can happen to a session. First what others tell it, then what comes of its own doing."""

    def start(self) -> None:
        """The client has connected."""

    def authenticate(self, auth: Auth) -> None:
        """The client says who it is."""

    def end(self, refusal: Refusal) -> None:
        """It must end: the client broke the protocol, or the proxy wants it so."""

    def client_ended(self) -> None:
        """The client ended its stream before relaying."""

    def _identified(self, cause: Cause) -> None:
        """It is known who the client is."""

    def _placed(self, slot: Slot) -> None:
        """The farm has a slot for it."""

    def _attempt_failed(self, cause: Cause) -> None:
        """The slot's game server did not let it in; another may."""

    def _admitted(self, attempt: Attempt) -> None:
        """The slot's game server lets it in."""

    def _refused(self, refusal: Refusal) -> None:
        """It cannot go on."""

    def _relay_ended(self, outcome: Outcome) -> None:
        """The relay has ended; both connections are being ended."""

    def _all_gone(self) -> None:
        """Neither connection exists any more."""


BAN_REASON_MAX: Final = 200
"""Characters of a game server's message that are kept as the reason of a ban."""
_NO_AUTH: Final = Auth("")
"""Stands for what the client has not said yet, or is of use no more."""


class SessionSteps:
    """What one session knows and does.

    :param id: unique over all proxies of the farm.
    :ivar inputs: to be told what happens.
    :ivar state: the name of the state it is in.
    :ivar player: who it is, when that is known.
    :ivar game: which game it is for, when that is known.
    :ivar slot: the slot that it has or had last.
    """

    log = Logger()
    inputs: Inputs

    def __init__(self, id: str, peer: Peer, client: Client, around: Surroundings) -> None:
        self.id = id
        self.peer = peer
        self.state = "expecting"
        self.player: str | None = None
        self.slot: Slot | None = None
        self.relay: Relay | None = None
        self._client = client
        self._around = around
        self._started_at = self._since = around.clock.seconds()
        self._relayed_at: float | None = None
        self._queued_at: float | None = None
        self._auth = _NO_AUTH
        self.game: str | None = None
        self._asked_farm = False
        self._has_waited = False
        self._reason = CloseReason.INTERNAL
        self._message = ""
        self._detail = ""
        self._still_open = 2  # the client's connection, and the slot

    def expect(self) -> IDelayedCall:
        """Wait for AUTH."""
        refusal = Refusal(CloseReason.AUTH_TIMEOUT)
        return self._around.clock.callLater(
            self._around.auth_timeout, lambda: self.inputs.end(refusal)
        )

    def check(self, auth: Auth) -> Deferred[None]:
        """Find out who the client is."""
        self._go_on("authenticating", Phase.EXPECTING)
        self._auth = auth
        identity = maybeDeferred(self._around.authenticator.authenticate, auth, self.peer)
        identity.addTimeout(self._around.auth_timeout, self._around.clock, _too_late)
        return self._report(identity, self.inputs._identified)

    def select(self, cause: Cause) -> Deferred[None]:
        """Look for a slot: for the first time, or after another that was of no use."""
        farm = self._around.farm
        if isinstance(cause, AttemptFailed):
            self._go_on("selecting")
            assert self.slot is not None
            self._detail = f"{self.slot.server}: {cause.message}"
            slot = maybeDeferred(farm.try_another, self.slot, cause, self._tell_waiting)
        else:
            self._go_on("selecting", Phase.AUTHENTICATING)
            slot = maybeDeferred(self._ask_farm, cause)
        return self._report(slot, self.inputs._placed)

    def connect(self, slot: Slot) -> Attempt:
        """Connect to the slot's game server."""
        now = self._go_on("connecting", Phase.SELECTING)
        self.slot = slot
        assert self.player is not None
        if self._has_waited:
            self._client.connecting()
        if self._queued_at is not None:
            self._pass(Phase.QUEUED, now - self._queued_at)
            self._queued_at = None
        properties, tls_version = self._auth.properties, self._client.tls_version
        introduction = Introduction(self.id, self.player, self.peer, properties, tls_version)
        attempt: Attempt
        try:
            attempt = self._around.attempt(slot, introduction)
        except Exception:
            attempt = NoAttempt(Failure())
        self._report(attempt.admitted, self.inputs._admitted)
        return attempt

    def play(self, attempt: Attempt) -> Relay:
        """Let the client in, and relay."""
        assert self.slot is not None and self.player is not None
        self._relayed_at = now = self._go_on("relaying", Phase.CONNECTING)
        self._pass(Phase.SETUP, now - self._started_at)
        self._attempt = attempt
        try:
            self._client.welcome(Welcome(self.id, self.player, self.slot.server, self.slot.game))
            self._around.farm.relaying(self.slot)
            self.relay = self._around.relay(
                self._client.hand_over(), attempt.hand_over(), self.inputs._relay_ended
            )
            self.relay.start()
            self._auth = _NO_AUTH
        except Exception:
            self.relay = NoRelay(self._client, attempt, self.inputs._relay_ended)
            self._failed(Failure())
        return self.relay

    def refuse(self, refusal: Refusal, attempt: Attempt | None = None) -> None:
        """End without having relayed, telling the client why."""
        told = refusal.message if refusal.message != ADVICE[refusal.reason] else ""
        self._detail = refusal.detail or self._detail or told
        try:
            self._client.refuse(refusal)
        except Exception:
            self._log_failure(Failure())
            self._try(self._client.leave)
        self._conclude(refusal.reason, refusal.message, attempt)

    def leave(self, attempt: Attempt | None = None) -> None:
        """End without having relayed, because the client has gone."""
        self._detail = self._client.fault
        self._try(self._client.leave)
        reason = CloseReason.CLIENT_LOST
        self._conclude(reason, ADVICE[reason], attempt)

    def finish(self, outcome: Outcome) -> None:
        """End after relaying."""
        if outcome.ban_for is not None and self.slot is not None and self.player is not None:
            reason, actor = outcome.message[:BAN_REASON_MAX], f"game server {self.slot.server}"
            self._try(self._around.farm.ban, self.player, outcome.ban_for, reason, actor)
        self._conclude(outcome.reason, outcome.message, self._attempt)

    def doubt(self) -> None:
        """Its player wants to begin another session: see whether the client of this one is still there."""
        self._client.probe()

    def report_end(self) -> None:
        """Tell that nothing is left of it."""
        self.state = "closed"
        self._around.ended(
            SessionRecord(
                session=self.id,
                peer=self.peer,
                reason=self._reason,
                message=self._message,
                detail=self._detail,
                player=self.player,
                game=self.game,
                server=self.slot.server if self.slot else None,
                started_at=self._started_at,
                ended_at=self._around.clock.seconds(),
                traffic=self.relay.traffic if self.relay else Traffic(),
                relayed_at=self._relayed_at,
            )
        )

    def _ask_farm(self, identity: Identity) -> Deferred[Slot]:
        self.player = identity.player
        self._around.identified(self.id)
        self.game = self._choose_game(identity)
        self._asked_farm = True
        request = SlotRequest(self.id, identity, self.game, self.peer)
        return self._around.farm.acquire(request, self._tell_waiting)

    def _choose_game(self, identity: Identity) -> str:
        asked, games = self._auth.game, self._around.games
        if identity.game is not None and asked not in (None, identity.game):
            raise Refusal(CloseReason.AUTH_FAILED)
        only = games[0] if len(games) == 1 else None
        game = next((one for one in (identity.game, asked, only) if one is not None), None)
        if game not in games:
            raise Refusal(CloseReason.UNKNOWN_GAME)
        return game

    def _tell_waiting(self, waiting: Waiting) -> None:
        if self.state == "selecting":  # else it would stand between the game's frames
            self._has_waited = True
            if self._queued_at is None:
                self._queued_at = self._around.clock.seconds()
            self._client.waiting(waiting)

    def _go_on(self, state: str, passed: Phase | None = None) -> float:
        """Come to another state; what time it is then.

        :param passed: what it has come through.
        """
        now = self._around.clock.seconds()
        if passed is not None:
            self._pass(passed, now - self._since)
        self.state, self._since = state, now
        return now

    def _pass(self, phase: Phase, seconds: float) -> None:
        self._around.passed(phase, max(seconds, 0.0))  # the clock may have been set back

    def _report(self, result: Deferred[T], arrived: Callable[[T], None]) -> Deferred[None]:
        """Feed the machine with what comes of something under way."""
        return result.addCallback(arrived).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, AttemptFailed):
            if error.busy or error.reason is not CloseReason.REFUSED:
                self.inputs._attempt_failed(error)
            else:
                self.inputs._refused(Refusal(error.reason, error.message))
        elif isinstance(error, Refusal):
            self.inputs._refused(error)
        else:
            if not isinstance(
                error, CancelledError
            ):  # of our own doing mostly: then the session is ending already
                self._log_failure(failure)
            refusal = Refusal(CloseReason.INTERNAL, retry_after=INTERNAL_RETRY_AFTER)
            self.inputs._refused(refusal)

    def _try(self, tell: Callable[..., None], *arguments: object) -> None:
        """Tell somebody something. However that goes, a session that ends must go on ending."""
        maybeDeferred(tell, *arguments).addErrback(self._log_failure)

    def _log_failure(self, failure: Failure) -> None:
        self.log.failure("Session {session} failed.", failure, session=self.id)

    def _conclude(self, reason: CloseReason, message: str, attempt: Attempt | None) -> None:
        self.state = "closing"
        self._reason, self._message = reason, message
        self._client.gone.addCallback(self._one_closed)
        server_gone = succeed(None) if attempt is None else attempt.gone
        server_gone.addCallback(self._release)

    def _release(self, _: None) -> None:
        if self._asked_farm:
            self._try(self._around.farm.release, self.id)
        self._one_closed(None)

    def _one_closed(self, _: None) -> None:
        self._still_open -= 1
        if self._still_open == 0:
            self.inputs._all_gone()


def _too_late(result: object, timeout: float) -> Never:
    raise Refusal(CloseReason.AUTH_TIMEOUT)

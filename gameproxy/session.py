"""One client's whole life at the proxy, as a state machine without I/O.

The machine decides, its surroundings do. Each state's data is what must be cancelled on the way out of it::

    expecting --> authenticating --> selecting <--> connecting --> relaying
        |               |                |              |             |
        +---------------+----------------+--------------+-------------+--> closing --> closed

Whatever happens, a session has one close reason and reports its end once. It gives its slot back once: when the
connection to its game server exists no more, so that no game server ever has more sessions than slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Never, Protocol, TypeVar

from automat import TypeMachineBuilder, pep614
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
from gameproxy.reasons import ADVICE, CloseReason, Refusal

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


class Session:
    """One session. What happens to it goes to its :attr:`inputs`.

    :param id: unique over all proxies of the farm.
    :ivar state: the name of the state it is in.
    :ivar player: who it is, when that is known.
    :ivar slot: the slot that it has or had last.
    """

    log = Logger()

    def __init__(self, id: str, peer: Peer, client: Client, around: Surroundings) -> None:
        self.id = id
        self.peer = peer
        self.state = "expecting"
        self.player: str | None = None
        self.slot: Slot | None = None
        self.relay: Relay | None = None
        self.inputs: Inputs = _machine(self)
        self._client = client
        self._around = around
        self._started_at = around.clock.seconds()
        self._auth = Auth("")
        self._game: str | None = None
        self._asked_farm = False
        self._has_waited = False
        self._reason = CloseReason.INTERNAL
        self._message = ""
        self._still_open = 2  # the client's connection, and the slot

    def expect(self) -> IDelayedCall:
        """Wait for AUTH."""
        refusal = Refusal(CloseReason.AUTH_TIMEOUT)
        return self._around.clock.callLater(
            self._around.auth_timeout, lambda: self.inputs.end(refusal)
        )

    def check(self, auth: Auth) -> Deferred[None]:
        """Find out who the client is."""
        self.state = "authenticating"
        self._auth = auth
        identity = maybeDeferred(self._around.authenticator.authenticate, auth, self.peer)
        identity.addTimeout(self._around.auth_timeout, self._around.clock, _too_late)
        return self._report(identity, self.inputs._identified)

    def select(self, cause: Cause) -> Deferred[None]:
        """Look for a slot: for the first time, or after another that was of no use."""
        self.state = "selecting"
        farm = self._around.farm
        if isinstance(cause, AttemptFailed):
            assert self.slot is not None
            slot = maybeDeferred(farm.try_another, self.slot, cause, self._tell_waiting)
        else:
            slot = maybeDeferred(self._ask_farm, cause)
        return self._report(slot, self.inputs._placed)

    def connect(self, slot: Slot) -> Attempt:
        """Connect to the slot's game server."""
        self.state = "connecting"
        self.slot = slot
        if self._has_waited:
            self._client.connecting()
        player = self.player or ""
        introduction = Introduction(self.id, player, self.peer, self._auth.properties)
        attempt = self._around.attempt(slot, introduction)
        self._report(attempt.admitted, self.inputs._admitted)
        return attempt

    def play(self, attempt: Attempt) -> Relay:
        """Let the client in, and relay."""
        assert self.slot is not None and self.player is not None
        self.state = "relaying"
        self._attempt = attempt
        self._client.welcome(Welcome(self.id, self.player, self.slot.server, self.slot.game))
        self._around.farm.relaying(self.slot)
        self.relay = self._around.relay(
            self._client.hand_over(), attempt.hand_over(), self.inputs._relay_ended
        )
        self.relay.start()
        return self.relay

    def refuse(self, refusal: Refusal, attempt: Attempt | None = None) -> None:
        """End without having relayed, telling the client why."""
        self._client.refuse(refusal)
        self._conclude(refusal.reason, refusal.message, attempt)

    def leave(self, attempt: Attempt | None = None) -> None:
        """End without having relayed, because the client has gone."""
        self._client.leave()
        reason = CloseReason.CLIENT_LOST
        self._conclude(reason, ADVICE[reason], attempt)

    def finish(self, outcome: Outcome) -> None:
        """End after relaying."""
        if outcome.ban_for is not None and self.slot is not None and self.player is not None:
            self._around.farm.ban(
                self.player, outcome.ban_for, outcome.message, f"game server {self.slot.server}"
            )
        self._conclude(outcome.reason, outcome.message, self._attempt)

    def report_end(self) -> None:
        """Tell that nothing is left of it."""
        self.state = "closed"
        self._around.ended(
            SessionRecord(
                session=self.id,
                peer=self.peer,
                reason=self._reason,
                message=self._message,
                player=self.player,
                game=self._game,
                server=self.slot.server if self.slot else None,
                started_at=self._started_at,
                ended_at=self._around.clock.seconds(),
                traffic=self.relay.traffic if self.relay else Traffic(),
            )
        )

    def _ask_farm(self, identity: Identity) -> Deferred[Slot]:
        self.player = identity.player
        self._around.identified(self.id)
        self._game = self._choose_game(identity)
        self._asked_farm = True
        request = SlotRequest(self.id, identity, self._game, self.peer)
        return self._around.farm.acquire(request, self._tell_waiting)

    def _choose_game(self, identity: Identity) -> str:
        asked, games = self._auth.game, self._around.games
        if identity.game and asked and identity.game != asked:
            raise Refusal(CloseReason.AUTH_FAILED)
        game = identity.game or asked or (games[0] if len(games) == 1 else None)
        if game is None or game not in games:
            raise Refusal(CloseReason.UNKNOWN_GAME)
        return game

    def _tell_waiting(self, waiting: Waiting) -> None:
        self._has_waited = True
        self._client.waiting(waiting)

    def _report(self, result: Deferred[T], arrived: Callable[[T], None]) -> Deferred[None]:
        """Feed the machine with what comes of something under way; nothing if that is cancelled."""
        return result.addCallback(arrived).addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, CancelledError):
            return
        if isinstance(error, AttemptFailed):
            if error.busy or error.reason is not CloseReason.REFUSED:
                self.inputs._attempt_failed(error)
            else:
                self.inputs._refused(Refusal(error.reason, error.message))
        elif isinstance(error, Refusal):
            self.inputs._refused(error)
        else:
            self.log.failure("Session {session} failed.", failure, session=self.id)
            refusal = Refusal(CloseReason.INTERNAL, retry_after=INTERNAL_RETRY_AFTER)
            self.inputs._refused(refusal)

    def _conclude(self, reason: CloseReason, message: str, attempt: Attempt | None) -> None:
        self.state = "closing"
        self._reason, self._message = reason, message
        self._client.gone.addCallback(self._one_closed)
        server_gone = succeed(None) if attempt is None else attempt.gone
        server_gone.addCallback(self._release)

    def _release(self, _: None) -> None:
        if self._asked_farm:
            self._around.farm.release(self.id)
        self._one_closed(None)

    def _one_closed(self, _: None) -> None:
        self._still_open -= 1
        if self._still_open == 0:
            self.inputs._all_gone()


def _too_late(result: object, timeout: float) -> Never:
    raise Refusal(CloseReason.AUTH_TIMEOUT)


def _make_machine() -> Callable[[Session], Inputs]:
    machine = TypeMachineBuilder(Inputs, Session)

    def expect(inputs: Inputs, session: Session) -> IDelayedCall:
        return session.expect()

    def check(inputs: Inputs, session: Session, auth: Auth) -> Deferred[None]:
        return session.check(auth)

    def select(inputs: Inputs, session: Session, cause: Cause) -> Deferred[None]:
        return session.select(cause)

    def connect(inputs: Inputs, session: Session, slot: Slot) -> Attempt:
        return session.connect(slot)

    def play(inputs: Inputs, session: Session, attempt: Attempt) -> Relay:
        return session.play(attempt)

    accepted = machine.state("accepted")
    expecting = machine.state("expecting", expect)
    authenticating = machine.state("authenticating", check)
    selecting = machine.state("selecting", select)
    connecting = machine.state("connecting", connect)
    relaying = machine.state("relaying", play)
    closing = machine.state("closing")
    closed = machine.state("closed")

    # The way of a session that goes well.
    accepted.upon(Inputs.start).to(expecting).returns(None)

    @pep614(expecting.upon(Inputs.authenticate).to(authenticating))
    def in_time(inputs: Inputs, session: Session, deadline: IDelayedCall, auth: Auth) -> None:
        deadline.cancel()

    authenticating.upon(Inputs._identified).to(selecting).returns(None)
    selecting.upon(Inputs._placed).to(connecting).returns(None)
    connecting.upon(Inputs._attempt_failed).to(selecting).returns(None)
    connecting.upon(Inputs._admitted).to(relaying).returns(None)

    @pep614(relaying.upon(Inputs._relay_ended).to(closing))
    def relayed(inputs: Inputs, session: Session, relay: Relay, outcome: Outcome) -> None:
        session.finish(outcome)

    @pep614(closing.upon(Inputs._all_gone).to(closed))
    def over(inputs: Inputs, session: Session) -> None:
        session.report_end()

    # It cannot go on: what it waited for has just said so, and is over.
    @pep614(authenticating.upon(Inputs._refused).to(closing))
    @pep614(selecting.upon(Inputs._refused).to(closing))
    def turned_away(
        inputs: Inputs, session: Session, found: Deferred[None], refusal: Refusal
    ) -> None:
        session.refuse(refusal)

    @pep614(connecting.upon(Inputs._refused).to(closing))
    def not_admitted(inputs: Inputs, session: Session, attempt: Attempt, refusal: Refusal) -> None:
        session.refuse(refusal, attempt)

    # It must end while it waits for something.
    @pep614(accepted.upon(Inputs.end).to(closing))
    def never_began(inputs: Inputs, session: Session, refusal: Refusal) -> None:
        session.refuse(refusal)

    @pep614(expecting.upon(Inputs.end).to(closing))
    def end_expecting(
        inputs: Inputs, session: Session, deadline: IDelayedCall, refusal: Refusal
    ) -> None:
        if deadline.active():
            deadline.cancel()
        session.refuse(refusal)

    @pep614(authenticating.upon(Inputs.end).to(closing))
    @pep614(selecting.upon(Inputs.end).to(closing))
    def end_waiting(
        inputs: Inputs, session: Session, found: Deferred[None], refusal: Refusal
    ) -> None:
        found.cancel()
        session.refuse(refusal)

    @pep614(connecting.upon(Inputs.end).to(closing))
    def end_connecting(
        inputs: Inputs, session: Session, attempt: Attempt, refusal: Refusal
    ) -> None:
        attempt.abandon()
        session.refuse(refusal, attempt)

    @pep614(relaying.upon(Inputs.end).loop())
    @pep614(relaying.upon(Inputs._refused).loop())
    def end_relaying(inputs: Inputs, session: Session, relay: Relay, refusal: Refusal) -> None:
        relay.close(refusal.reason, refusal.message)

    # The client goes while it waits for something.
    @pep614(accepted.upon(Inputs.client_ended).to(closing))
    def left_at_once(inputs: Inputs, session: Session) -> None:
        session.leave()

    @pep614(expecting.upon(Inputs.client_ended).to(closing))
    def left_expecting(inputs: Inputs, session: Session, deadline: IDelayedCall) -> None:
        deadline.cancel()
        session.leave()

    @pep614(authenticating.upon(Inputs.client_ended).to(closing))
    @pep614(selecting.upon(Inputs.client_ended).to(closing))
    def left_waiting(inputs: Inputs, session: Session, found: Deferred[None]) -> None:
        found.cancel()
        session.leave()

    @pep614(connecting.upon(Inputs.client_ended).to(closing))
    def left_connecting(inputs: Inputs, session: Session, attempt: Attempt) -> None:
        attempt.abandon()
        session.leave(attempt)

    # What comes too late changes nothing: of a session that ends, the first cause counts.
    for state in (closing, closed):
        for late in (
            Inputs.authenticate,
            Inputs.end,
            Inputs.client_ended,
            Inputs._identified,
            Inputs._placed,
            Inputs._attempt_failed,
            Inputs._admitted,
            Inputs._refused,
            Inputs._relay_ended,
        ):
            state.upon(late).loop().returns(None)
    return machine.build()


_machine = _make_machine()

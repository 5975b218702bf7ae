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

from automat import TypeMachineBuilder, pep614
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from gameproxy.interfaces import Attempt, Client, Outcome, Peer, Relay, Slot, Surroundings
from gameproxy.messages import Auth
from gameproxy.reasons import ADVICE, CloseReason, Refusal
from gameproxy.session_steps import Cause, Inputs, SessionSteps


class Session(SessionSteps):
    """One session. What happens to it goes to its :attr:`inputs`.

    :param id: unique over all proxies of the farm.
    :ivar inputs: takes every input at any time; what makes no sense at the moment changes nothing.
    :ivar state: the name of the state it is in.
    :ivar player: who it is, when that is known.
    :ivar slot: the slot that it has or had last.
    """

    def __init__(self, id: str, peer: Peer, client: Client, around: Surroundings) -> None:
        super().__init__(id, peer, client, around)
        self.inputs = _machine(self)


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

    # AUTH comes once.
    accepted.upon(Inputs.authenticate).to(authenticating).returns(None)

    @pep614(authenticating.upon(Inputs.authenticate, nodata=True).loop())
    @pep614(selecting.upon(Inputs.authenticate, nodata=True).loop())
    @pep614(connecting.upon(Inputs.authenticate, nodata=True).loop())
    @pep614(relaying.upon(Inputs.authenticate, nodata=True).loop())
    def again(inputs: Inputs, session: Session, auth: Auth) -> None:
        inputs.end(Refusal(CloseReason.PROTOCOL_ERROR, "AUTH came twice."))

    @pep614(relaying.upon(Inputs.client_ended).loop())
    def left_before_handed_over(inputs: Inputs, session: Session, relay: Relay) -> None:
        relay.close(CloseReason.CLIENT_LOST, ADVICE[CloseReason.CLIENT_LOST])

    # All else was not waited for or comes too late, and changes nothing: of causes to end, the first counts.
    told = (Inputs.start, Inputs.authenticate, Inputs.end, Inputs.client_ended)
    results = (
        Inputs._identified,
        Inputs._placed,
        Inputs._attempt_failed,
        Inputs._admitted,
        Inputs._refused,
        Inputs._relay_ended,
        Inputs._all_gone,
    )
    for state, meant in (
        (accepted, told),
        (expecting, told[1:]),
        (authenticating, (*told[1:], Inputs._identified, Inputs._refused)),
        (selecting, (*told[1:], Inputs._placed, Inputs._refused)),
        (connecting, (*told[1:], Inputs._attempt_failed, Inputs._admitted, Inputs._refused)),
        (relaying, (*told[1:], Inputs._relay_ended, Inputs._refused)),
        (closing, (Inputs._all_gone,)),
        (closed, ()),
    ):
        for other in (*told, *results):
            if other not in meant:
                state.upon(other).loop().returns(None)
    return machine.build()


_machine = _make_machine()

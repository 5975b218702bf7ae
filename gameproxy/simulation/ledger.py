"""What must always hold, counted beside the farm's tables: the tables are not their own witness."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from gameproxy.interfaces import AttemptFailed, SessionRecord, Slot, SlotRequest, Waiting
from gameproxy.simulation.clients import sender_of

T = TypeVar("T")
GUEST: Final = "guest:"
"""What guests' names begin with: they need not be unique."""
OVERTAKEN_MAX: Final = 3
"""How often a waiting session may see another get a slot first: its own may be under way."""
OVERTAKEN_PAUSE: Final = 500_000
"""Microseconds between two such times that count."""


class Ledger:
    """Who has which slot, who is in which game server, and what was counted.

    Each method that is told something checks, in constant time, what that may break.

    :param violated: called with what should not be.
    :param capacity_of: gives the most sessions of a game server, by its id and its game.
    :param connections_to: gives how many connections proxies have to a game server.
    :param write: adds a line to the trace.
    """

    def __init__(
        self,
        violated: Callable[[str], object],
        capacity_of: Callable[[str, str], int],
        connections_to: Callable[[str], int],
        write: Callable[..., object],
    ) -> None:
        self.violated = violated
        self.write = write
        self.granted = 0
        self.relayed = 0
        self.released = 0
        self.asked = 0
        self.ended: dict[str, str] = {}
        """Sessions that are over, with their reasons."""
        self.reasons: dict[str, int] = {}
        self.inside: dict[str, dict[str, int]] = {}
        """Who is in each game server: sessions, and how many frames have come from each."""
        self.banned: dict[str, None] = {}
        """Players who are banned, in every database that counts."""
        self.addresses: dict[str, tuple[str, int]] = {}
        """Where the game servers are to which sessions were sent: hosts and ports."""
        self._capacity_of = capacity_of
        self._connections_to = connections_to
        self._games: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._asked_though_banned: dict[str, None] = {}
        self._slots: dict[str, str] = {}
        self._taken: dict[str, int] = {}
        self._known: dict[str, None] = {}
        self._tickets: dict[str, str] = {}
        self._failed: dict[str, dict[str, None]] = {}
        self._unsure: dict[str, None] = {}
        """Sessions whose slots others may have while they are in game servers."""
        self._given_up: dict[str, None] = {}
        """Of these, those that have theirs again if their proxies can put them back."""

    # What the farm was asked, and what it gave

    def session_asks(self, request: SlotRequest) -> None:
        self.asked += 1
        if request.session in self.ended:
            self.violated(f"session {request.session} asks for a slot and is over")
        self._known[request.session] = None
        if request.identity.player in self.banned:
            self._asked_though_banned[request.session] = None

    def ticket_taken(self, session: str, jti: str) -> None:
        """A session has a slot, or a place in the queue, by a ticket."""
        if self._tickets.setdefault(jti, session) != session:
            self.violated(f"session {session} has come by a ticket that was used before")

    def clock_set(self) -> None:
        """What was remembered until a time may be forgotten."""
        self._tickets.clear()

    def attempt_failed(self, slot: Slot) -> None:
        """A game server did not let a session in, and is not to be tried again."""
        self._failed.setdefault(slot.session, {})[slot.server] = None

    def slot_granted(self, slot: Slot) -> None:
        self._give_back(slot.session)
        if slot.server in self._failed.get(slot.session, ()):
            self.violated(f"session {slot.session} is sent where it was not let in before")
        self.granted += 1
        self.write("slot", slot.session[:8], slot.server)
        if slot.session in self._asked_though_banned:
            self.violated(f"session {slot.session} has a slot, and its player was banned before")
        self._games[slot.server] = slot.game
        self.addresses[slot.server] = slot.host, slot.port
        if slot.session in self._unsure:
            # Its proxy hears of it late, when it goes on: others may have been given the slot since.
            self._given_up[slot.session] = None
        else:
            self._take(slot.session, slot.server)

    def slot_relays(self, session: str) -> None:
        self.relayed += 1
        if session not in self._slots and session not in self._unsure:
            self.violated(f"session {session} relays without a slot")

    def slot_released(self, session: str) -> None:
        self.released += 1
        self._given_up.pop(session, None)
        self._give_back(session)

    def session_ended(self, record: SessionRecord) -> None:
        reason = record.reason.value
        if record.session in self.ended:
            self.violated(f"session {record.session} ended twice: {reason}")
        self.ended[record.session] = reason
        self.reasons[reason] = self.reasons.get(reason, 0) + 1
        if record.session in self._slots:
            self.violated(f"session {record.session} is over and has a slot")

    def proxy_died(self, sessions: list[str]) -> None:
        """Its sessions are nobody's any more."""
        for session in sessions:
            self._give_back(session)

    def proxy_stands_still(self, sessions: Iterable[str]) -> None:
        """Others may take it for dead and give its slots to others, while its sessions are still in game servers."""
        for session in sessions:
            # What is released is not given up: its row may be there still, and goes before anybody is given the slot.
            if session in self._slots:
                self._given_up[session] = None
                self._give_back(session)
            self._unsure[session] = None

    def database_replaced(self, banned: Iterable[str], sessions: Iterable[str]) -> None:
        """What the farm knew is lost, or is what it was once: tickets that were used, bans, and who has which slot.

        :param banned: the players whom it has for banned now.
        :param sessions: those whose slots others may be given until their proxies have put them back.
        """
        self._tickets.clear()
        self._asked_though_banned.clear()
        self.banned = dict.fromkeys(banned)
        self.proxy_stands_still(sessions)

    def slots_put_back(self, sessions: Iterable[str], slots: Mapping[str, str]) -> None:
        """A proxy's sessions have their slots again that others might have been given, as far as there was room.

        :param sessions: all that it has.
        :param slots: what the database has of them: the game servers of those with a slot.
        """
        for session in sessions:
            if session not in self._given_up:
                self._unsure.pop(session, None)
            elif session in slots:
                del self._given_up[session], self._unsure[session]
                self._take(session, slots[session])

    @property
    def taken(self) -> int:
        """How many slots are taken."""
        return len(self._slots)

    # What happens in game servers

    def player_joined(self, server: str, session: str, name: str) -> None:
        players = self.inside.setdefault(server, {})
        if session not in self._known:
            self.violated(f"somebody is in game server {server} whom no proxy has sent")
            return
        if session in players:
            self.violated(f"session {session} is in game server {server} twice")
        players[session] = 0
        self.write("joined", server, session[:8])
        self._names[session] = name
        sure = len(players)
        if self._unsure:
            sure -= sum(session in self._unsure for session in players)
        capacity = self._capacity_of(server, self._games[server])
        # That a proxy has ended a connection, a game server elsewhere may hear later than that another was made.
        if sure > capacity and self._connections_to(server) > capacity:
            self.violated(f"{len(players)} players are in game server {server}")

    def frame_received(self, server: str, session: str, body: bytes) -> None:
        """A frame of a client's has come: it must be its next one."""
        players = self.inside.get(server, {})
        if session not in players:
            self.violated(f"a frame of session {session}, which is not in game server {server}")
            return
        try:
            _, count = sender_of(body)
        except ValueError:
            self.violated(f"game server {server} got another frame than session {session} sent")
            return
        if count != players[session]:
            self.violated(f"frame {count} of session {session} came in place of {players[session]}")
        players[session] += 1

    def player_left(self, server: str, session: str) -> None:
        if self.inside.get(server, {}).pop(session, None) is None:
            self.violated(f"session {session} left game server {server} and was not in")

    def wrongly_inside(self) -> str | None:
        """Whether somebody plays who should not: twice under a name that is nobody else's, or banned."""
        seen: dict[str, None] = {}
        for players in self.inside.values():
            for session in players:
                name = self._names[session]
                if name in self.banned:
                    return f"{name} is banned and plays"
                if name in seen and not name.startswith(GUEST):
                    return f"{name} plays twice"
                seen[name] = None
        return None

    def server_ended(self, server: str) -> None:
        self.inside.pop(server, None)

    def _take(self, session: str, server: str) -> None:
        self._slots[session] = server
        taken = self._taken[server] = self._taken.get(server, 0) + 1
        if taken > self._capacity_of(server, self._games[server]):
            self.violated(f"game server {server} has {taken} sessions")

    def _give_back(self, session: str) -> None:
        server = self._slots.pop(session, None)
        if server is not None:
            self.write("free", session[:8], server)
            self._taken[server] -= 1


class WatchedFarm:
    """A proxy's farm, with a ledger that hears what goes in and out.

    :param farm: the real one, which does all.
    :param now: gives the time in microseconds.
    """

    def __init__(self, farm: Any, ledger: Ledger, now: Callable[[], int]) -> None:
        self._farm = farm
        self._ledger = ledger
        self._now = now
        self._waiting: dict[str, dict[str, list[int]]] = {}
        """Who waits for each game, in the order in which they came, and when they were overtaken."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._farm, name)

    def acquire(
        self, request: SlotRequest, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        self._ledger.session_asks(request)
        self._ledger.write("asks", request.session[:8], request.peer.port)
        ticket = request.identity.ticket
        unspent = [] if ticket is None else [ticket.jti]

        def is_in(place: T) -> T:
            while unspent:
                self._ledger.ticket_taken(request.session, unspent.pop())
            return place

        def waits(waiting: Waiting) -> None:
            is_in(waiting)
            self._waiting.setdefault(request.game, {}).setdefault(request.session, [])
            on_waiting(waiting)

        slot: Deferred[Slot] = self._farm.acquire(request, waits)
        slot.addCallback(is_in)
        slot.addCallback(self._in_turn)
        return slot.addCallbacks(self._granted, self._turned_away, errbackArgs=(request,))

    def try_another(
        self, slot: Slot, failure: AttemptFailed, on_waiting: Callable[[Waiting], None]
    ) -> Deferred[Slot]:
        self._ledger.slot_released(slot.session)
        if not failure.busy:
            self._ledger.attempt_failed(slot)
        other: Deferred[Slot] = self._farm.try_another(slot, failure, on_waiting)
        return other.addCallback(self._granted)

    def relaying(self, slot: Slot) -> None:
        self._ledger.slot_relays(slot.session)
        self._farm.relaying(slot)

    def release(self, session: str) -> None:
        self._ledger.slot_released(session)
        self._farm.release(session)

    def _granted(self, slot: Slot) -> Slot:
        self._ledger.slot_granted(slot)
        return slot

    def _turned_away(self, failure: Failure, request: SlotRequest) -> Failure:
        self._waiting.get(request.game, {}).pop(request.session, None)
        return failure

    def _in_turn(self, slot: Slot) -> Slot:
        """Who has waited longest is first. Only those are looked at who ask for the first time: others have servers
        that they are not sent to again."""
        queue = self._waiting.get(slot.game, {})
        queue.pop(slot.session, None)
        if queue:
            first, times = next(iter(queue.items()))
            if not times or self._now() - times[-1] >= OVERTAKEN_PAUSE:
                times.append(self._now())
            if len(times) > OVERTAKEN_MAX:
                self._ledger.violated(f"session {first} waits, and others get in before it")
        return slot

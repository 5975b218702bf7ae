"""The bug zoo: safeguards of the real code, each taken out by a patch. The simulation must miss each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import FunctionType
from typing import Any

from pytest import MonkeyPatch

from gameproxy import client_side, handshake
from gameproxy.client_side import EarlyBytes
from gameproxy.farm import registry, slots, upgrades
from gameproxy.farm.keeper import ServerKeeper
from gameproxy.farm.placement import Placement
from gameproxy.farm.reaper import Reaper
from gameproxy.farm.slots import SlotTable
from gameproxy.farm.store import FarmStore
from gameproxy.relay.lane import Lane
from gameproxy.relay.transport import TransportRelay
from gameproxy.server_side import Dialling, ServerSide
from gameproxy.session_steps import SessionSteps
from gameproxy.wire import StallWatch

NEVER = 1e9
"""Seconds after which nothing in a run comes any more."""


@dataclass(frozen=True)
class Bug:
    """A safeguard that is missing.

    :param missing: what is not done any more, in one sentence.
    :param plant: takes it out, until the patch is undone.
    :param clients: how few clients show it: more where a queue must be long.
    """

    name: str
    missing: str
    plant: Callable[[MonkeyPatch], None] = field(repr=False)
    clients: int = 2


ZOO: list[Bug] = []


def bug(
    missing: str, clients: int = 2
) -> Callable[[Callable[[MonkeyPatch], None]], Callable[[MonkeyPatch], None]]:
    """Put a bug into the zoo, named as the function that plants it."""

    def add(plant: Callable[[MonkeyPatch], None]) -> Callable[[MonkeyPatch], None]:
        ZOO.append(Bug(plant.__name__.replace("_", "-"), missing, plant, clients))
        return plant

    return add


def does_nothing(*arguments: object, **more: object) -> None:
    """In place of what does something."""


# Slots


@bug(
    "A client that leaves while it waits for a game server's start gives back its place in the queue."
)
def place_in_the_queue_kept(patch: MonkeyPatch) -> None:
    _forget_to_release(patch, "queued")


@bug("A client that leaves while its game server is dialled gives back its slot.")
def reserved_slot_kept(patch: MonkeyPatch) -> None:
    _forget_to_release(patch, "reserved")


@bug("A client that leaves before the farm has answered gives back what the answer says.")
def unanswered_slot_kept(patch: MonkeyPatch) -> None:
    _forget_to_release(patch, "")


def _forget_to_release(patch: MonkeyPatch, state: str) -> None:
    release = Placement.release

    def forgets(self: Placement, session: str) -> None:
        seat = self._seats.get(session)
        if seat is None or seat.state != state:
            release(self, session)

    patch.setattr(Placement, "release", forgets)


@bug("What must be written is tried again when the database was locked.")
def release_not_retried(patch: MonkeyPatch) -> None:
    def once(self: FarmStore, operation: Any, name: str) -> Any:
        return self.write(operation).addErrback(does_nothing)

    patch.setattr(FarmStore, "must", once)


@bug("A slot is given back when the connection to its game server exists no more, and not before.")
def released_before_gone(patch: MonkeyPatch) -> None:
    def conclude(self: SessionSteps, reason: Any, message: str, attempt: Any) -> None:
        self.state = "closing"
        self._reason, self._message = reason, message
        self._client.gone.addCallback(self._one_closed)
        self._release(None)

    patch.setattr(SessionSteps, "_conclude", conclude)


@bug("A game server gets no more sessions than its capacity.")
def capacity_not_looked_at(patch: MonkeyPatch) -> None:
    everywhere = (
        ("connections + reserved < capacity", "connections + reserved < capacity + 2"),
        ("* 1.0 / capacity", "* 1.0 / (capacity + 2)"),
    )
    _change_schema(patch, *everywhere)


@bug("A reserved slot that is given back is counted as free.")
def reserved_count_kept(patch: MonkeyPatch) -> None:
    _change_schema(
        patch,
        (
            "reserved = reserved - (OLD.state = 'reserved'),\n"
            "        connections = connections - (OLD.state = 'connected'),\n"
            "        connections_removed = connections_removed + (OLD.state = 'connected')\n"
            "    WHERE id = OLD.server;\nEND;",
            "connections = connections - (OLD.state = 'connected'),\n"
            "        connections_removed = connections_removed + (OLD.state = 'connected')\n"
            "    WHERE id = OLD.server;\nEND;",
        ),
    )


def _change_schema(patch: MonkeyPatch, *changes: tuple[str, str]) -> None:
    scripts = []
    for number, script in upgrades._SCRIPTS:
        for old, new in changes:
            assert old in script, old
            script = script.replace(old, new)
        scripts.append((number, script))
    patch.setattr(upgrades, "_SCRIPTS", scripts)


@bug("Who waits is served in the order of arrival.", clients=6)
def last_come_first_served(patch: MonkeyPatch) -> None:
    _change_statements(
        patch,
        SlotTable,
        "_match",
        ("evict IS NULL ORDER BY arrival", "evict IS NULL ORDER BY arrival DESC"),
    )


@bug("A session is not sent again to a game server that did not let it in.")
def same_server_again(patch: MonkeyPatch) -> None:
    move = SlotTable.move

    def forgets(self: SlotTable, cursor: Any, session: str, game: str, *rest: Any) -> Any:
        _, _, resting, nothing_left, now = rest
        return move(self, cursor, session, game, (), (), resting, nothing_left, now)

    patch.setattr(SlotTable, "move", forgets)


@bug("A ticket is good once.")
def ticket_good_again(patch: MonkeyPatch) -> None:
    patch.setattr(slots, "_spend_ticket", does_nothing)


# Sessions that have to end


@bug("A player's first session ends when a second begins.")
def duplicates_let_be(patch: MonkeyPatch) -> None:
    patch.setattr(SlotTable, "_settle_duplicates", lambda self, cursor, identity: [])


@bug("Sessions that are marked to be ended are ended.")
def evictions_not_acted_upon(patch: MonkeyPatch) -> None:
    patch.setattr(Placement, "evict", does_nothing)


@bug("Who is banned gets no slot.")
def banned_player_let_in(patch: MonkeyPatch) -> None:
    patch.setattr(SlotTable, "check_bans", does_nothing)


@bug("A session is over when both of its connections are gone.")
def over_too_soon(patch: MonkeyPatch) -> None:
    def one_closed(self: SessionSteps, _: object) -> None:
        self._still_open -= 1
        if self._still_open == 1:
            self.inputs._all_gone()

    patch.setattr(SessionSteps, "_one_closed", one_closed)


@bug("A session reports its end once, with one close reason.")
def two_close_reasons(patch: MonkeyPatch) -> None:
    report = SessionSteps.report_end

    def one_closed(self: SessionSteps, _: object) -> None:
        self._still_open -= 1
        report(self)

    patch.setattr(SessionSteps, "_one_closed", one_closed)
    patch.setattr(SessionSteps, "report_end", does_nothing)


# Proofs


@bug("The proxy checks the MAC of ADMITTED.")
def admitted_not_checked(patch: MonkeyPatch) -> None:
    check = handshake._check_mac

    def checks_all_but_one(expected: bytes, payload: bytes, name: str) -> None:
        if name != "ADMITTED":
            check(expected, payload, name)

    patch.setattr(handshake, "_check_mac", checks_all_but_one)


@bug("A game server checks the MAC of ADMIT.")
def admit_not_checked(patch: MonkeyPatch) -> None:
    check = handshake._check_mac

    def checks_all_but_one(expected: bytes, payload: bytes, name: str) -> None:
        if name != "ADMIT":
            check(expected, payload, name)

    patch.setattr(handshake, "_check_mac", checks_all_but_one)


# Streams


@bug("A reader that is slow stops the other side's writing.")
def no_backpressure(patch: MonkeyPatch) -> None:
    patch.setattr(Lane, "pauseProducing", does_nothing)


@bug("A side that takes nothing for long is let go of.")
def stalls_not_noticed(patch: MonkeyPatch) -> None:
    def look(self: StallWatch) -> None:
        self._call = self._clock.callLater(self._timeout, self._look)

    patch.setattr(StallWatch, "_look", look)


@bug("What clients send before they are let in is bounded.")
def early_bytes_unbounded(patch: MonkeyPatch) -> None:
    patch.setattr(client_side, "EARLY_MAX", 1 << 30)


@bug("The room of what came early is given back.")
def early_room_kept(patch: MonkeyPatch) -> None:
    patch.setattr(EarlyBytes, "give_back", does_nothing)


@bug("Frames that only the other side may send do not pass.")
def reserved_frames_pass(patch: MonkeyPatch) -> None:
    start = TransportRelay.start

    def looks_at_no_type(self: TransportRelay) -> None:
        start(self)
        self._from_client.scanner.verdicts = None

    patch.setattr(TransportRelay, "start", looks_at_no_type)


@bug("CLOSE is written between two frames, or not at all.")
def close_within_a_frame(patch: MonkeyPatch) -> None:
    def let_go(self: Lane, last_words: bytes) -> bytes:
        self._stop_watching()
        return last_words

    patch.setattr(Lane, "let_go", let_go)


@bug("What a client sent early is delivered before what it sends later.")
def early_frames_lost(patch: MonkeyPatch) -> None:
    def begin(self: Lane) -> None:
        self._early = b""

    patch.setattr(Lane, "begin", begin)


# Deadlines


@bug("A client that does not say who it is is sent away.")
def no_auth_deadline(patch: MonkeyPatch) -> None:
    def expect(self: SessionSteps) -> Any:
        return self._around.clock.callLater(NEVER, does_nothing)

    patch.setattr(SessionSteps, "expect", expect)


@bug("A game server that says nothing is given up.")
def no_handshake_deadline(patch: MonkeyPatch) -> None:
    patch.setattr(ServerSide, "_too_late", does_nothing)


@bug("A game server that cannot be reached is given up.")
def no_connect_deadline(patch: MonkeyPatch) -> None:
    begin = ServerSide.__init__

    def patient(self: ServerSide, dialling: Dialling, *arguments: Any) -> None:
        begin(self, replace(dialling, connect_timeout=NEVER), *arguments)

    patch.setattr(ServerSide, "__init__", patient)


@bug("A start that takes too long is ended.")
def starts_may_take_for_ever(patch: MonkeyPatch) -> None:
    patch.setattr(ServerKeeper, "_inspect_start", does_nothing)


@bug("A game server that does not end when asked is ended.")
def no_kill_after_the_grace(patch: MonkeyPatch) -> None:
    def kill(self: ServerKeeper, server: str, process: Any) -> None:
        del self._kills[server]

    patch.setattr(ServerKeeper, "_kill", kill)


# The farm's upkeep


@bug(
    "Proxies that are dead are removed, with their slots, and their game servers are looked after."
)
def dead_proxies_stay(patch: MonkeyPatch) -> None:
    patch.setattr(Reaper, "_bury", does_nothing)


@bug("A game server whose process has ended has its row closed.")
def ended_servers_stay(patch: MonkeyPatch) -> None:
    patch.setattr(registry, "close_server", does_nothing)


def _change_statements(
    patch: MonkeyPatch, owner: type, name: str, *changes: tuple[str, str]
) -> None:
    """Have a method with other constants."""
    function = getattr(owner, name)
    code = function.__code__
    constants = code.co_consts
    for old, new in changes:
        assert any(isinstance(one, str) and old in one for one in constants), old
        constants = tuple(
            one.replace(old, new) if isinstance(one, str) else one for one in constants
        )
    changed = FunctionType(
        code.replace(co_consts=constants), function.__globals__, name, function.__defaults__
    )
    patch.setattr(owner, name, changed)

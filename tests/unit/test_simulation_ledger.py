"""What the ledger of a simulated world counts when proxies stand still and the database is replaced."""

from __future__ import annotations

from gameproxy.interfaces import Slot
from gameproxy.simulation.ledger import Ledger


def slot_of(session: str) -> Slot:
    return Slot(session, "red", "echo", "127.0.0.1", 4000, bytes(32))


def test_slot_heard_of_late() -> None:
    """A session that hears of its slot when its proxy goes on has one slot, also when it is put back after that; that
    of another is one too many."""
    violations: list[str] = []
    ledger = Ledger(violations.append, lambda server, game: 1, lambda server: 0, lambda *words: 0)
    ledger.proxy_stands_still(["one"])
    ledger.slot_granted(slot_of("one"))
    ledger.slots_put_back([("one", "red")])
    assert (violations, ledger.taken) == ([], 1)
    ledger.slot_granted(slot_of("two"))
    assert violations == ["game server red has 2 sessions"]

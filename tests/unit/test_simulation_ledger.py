"""What the ledger of a simulated world counts when proxies stand still and the database is replaced."""

from __future__ import annotations

import pytest

from gameproxy.interfaces import Slot
from gameproxy.simulation.ledger import Ledger


def slot_of(session: str) -> Slot:
    return Slot(session, "red", "echo", "127.0.0.1", 4000, bytes(32))


@pytest.fixture
def violations() -> list[str]:
    return []


@pytest.fixture
def ledger(violations: list[str]) -> Ledger:
    """Of game servers with one place each."""
    return Ledger(violations.append, lambda server, game: 1, lambda server: 0, lambda *words: 0)


def test_slot_heard_of_late(ledger: Ledger, violations: list[str]) -> None:
    """A session that hears of its slot when its proxy goes on has one slot when that is put back; that of another is
    one too many."""
    ledger.proxy_stands_still(["one"])
    ledger.slot_granted(slot_of("one"))
    ledger.slots_put_back(["one"], {"one": "red"})
    assert (violations, ledger.taken) == ([], 1)
    ledger.slot_granted(slot_of("two"))
    assert violations == ["game server red has 2 sessions"]


def test_slot_heard_of_too_late(ledger: Ledger, violations: list[str]) -> None:
    """What a session hears when its proxy goes on may be another's by then: that is no slot, nor is it put back."""
    ledger.proxy_stands_still(["one"])
    ledger.slot_granted(slot_of("two"))
    ledger.slot_granted(slot_of("one"))
    ledger.slots_put_back(["one"], {})
    ledger.slot_released("one")
    assert (violations, ledger.taken) == ([], 1)


def test_slot_released_before(ledger: Ledger, violations: list[str]) -> None:
    """The row of a slot that was released before its proxy stood still is nobody's slot, though it is there still."""
    ledger.slot_granted(slot_of("one"))
    ledger.slot_released("one")
    ledger.proxy_stands_still(["one"])
    ledger.slots_put_back(["one"], {"one": "red"})
    assert ledger.taken == 0
    ledger.slot_granted(slot_of("two"))
    assert (violations, ledger.taken) == ([], 1)


def test_slot_given_after_that(ledger: Ledger, violations: list[str]) -> None:
    """What a session is given that waited while its proxy stood still counts from then on."""
    ledger.proxy_stands_still(["one"])
    ledger.slots_put_back(["one"], {})
    ledger.slot_granted(slot_of("one"))
    assert (violations, ledger.taken) == ([], 1)

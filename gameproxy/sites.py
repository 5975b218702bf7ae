"""Named sites: places in the code that a simulation may disturb (as FoundationDB's BUGGIFY does), each in a way that
what is there must bear. Otherwise nothing ever happens there.

Whoever has a site is given a function, and asks it each time that it comes by: is it to be disturbed this time?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Disturbs = Callable[[str], bool]
"""Called with the name of a site; whether it is to be disturbed now. On the reactor's thread only."""

LATE: Final = 0.3
"""Seconds by which a disturbed site is late."""

STORE_ONE_AT_A_TIME: Final = "store: one request a transaction"
"""Requests that could share a transaction do not."""
STORE_PAUSE: Final = "store: a pause after a transaction"
"""What waits for the next transaction waits a little longer."""
FARM_LATE_CHANGE: Final = "farm: a change is heard late"
"""Those who wait for a game server are told later that one came or went."""
REAPER_READS_ALL: Final = "reaper: an unchanged farm is read"
"""The upkeep reads the whole farm, as if it had changed."""
KEEPER_LATE_START: Final = "keeper: a late start"
"""A game server is started later than its row was made."""
SERVER_LATE_DIAL: Final = "server side: a late dial"
"""A game server is dialled later than its slot was taken."""
RELAY_SMALL_BUFFERS: Final = "relay: small buffers"
"""Little is read at a time, and a reader counts as slow as soon as something waits for it."""
AUTH_LATE_ANSWER: Final = "auth: a late answer"
"""It takes a while until it is known who a client is."""

SITES: Final = (
    STORE_ONE_AT_A_TIME,
    STORE_PAUSE,
    FARM_LATE_CHANGE,
    REAPER_READS_ALL,
    KEEPER_LATE_START,
    SERVER_LATE_DIAL,
    RELAY_SMALL_BUFFERS,
    AUTH_LATE_ANSWER,
)
"""All of them."""


def never(site: str) -> bool:
    """Disturbs nothing."""
    return False

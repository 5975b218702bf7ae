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
FARM_UNHEARD_CHANGE: Final = "farm: a change is not heard"
"""Those who wait for a game server are not told that one came or went: the upkeep's next look finds it."""
KEEPER_LATE_START: Final = "keeper: a late start"
"""A game server is started later than its row was made."""
SERVER_LATE_DIAL: Final = "server side: a late dial"
"""A game server is dialled later than its slot was taken."""
SERVER_LATE_ADMIT: Final = "server side: a late ADMIT"
"""A game server that was dialled waits for ADMIT."""
RELAY_SMALL_BUFFERS: Final = "relay: small buffers"
"""Little is read at a time, and a reader counts as slow as soon as something waits for it."""
AUTH_LATE_ANSWER: Final = "auth: a late answer"
"""It takes a while until it is known who a client is."""

SITES: Final = (
    STORE_ONE_AT_A_TIME,
    STORE_PAUSE,
    FARM_UNHEARD_CHANGE,
    KEEPER_LATE_START,
    SERVER_LATE_DIAL,
    SERVER_LATE_ADMIT,
    RELAY_SMALL_BUFFERS,
    AUTH_LATE_ANSWER,
)
"""All of them."""


def never(site: str) -> bool:
    """Disturbs nothing."""
    return False

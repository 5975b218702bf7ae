"""Whom a ban or a kick concerns, and what is done about them: each function with a cursor is one operation on it."""

from __future__ import annotations

import sqlite3
from typing import Final, Literal, NamedTuple

from gameproxy.auth import BadName, player_name
from gameproxy.farm import orders, registry, reports

REASON_MAX: Final = 200
"""Characters of a reason at most."""


class Subject(NamedTuple):
    """A player, or an IP or CIDR, written as the proxies compare them."""

    kind: Literal["player", "address"]
    name: str


def subject_of(kind: str, text: str) -> Subject:
    """Whom somebody means.

    :raises ValueError: nobody can be called so.
    """
    if kind == "player":
        try:
            return Subject("player", player_name(text))
        except BadName as error:
            raise ValueError(str(error)) from None
    if kind == "address":
        network = orders.network_of(text.strip())
        whole = network.prefixlen == network.max_prefixlen
        return Subject("address", str(network.network_address if whole else network))
    raise ValueError(f"{kind!r} is neither player nor address")


def ban(
    cursor: sqlite3.Cursor,
    subject: Subject,
    seconds: float | None,
    reason: str,
    actor: str,
    now: float,
) -> dict[str, object]:
    """Ban, for so long; ``None`` for ever.

    :return: the ban, which may be an earlier one that is longer.
    """
    until = None if seconds is None else now + seconds
    registry.ban(cursor, subject.kind, subject.name, reason, actor, now, until)
    found = reports.ban_row(cursor, subject.kind, subject.name)
    assert found is not None
    return found


def unban(cursor: sqlite3.Cursor, subject: Subject) -> bool:
    """Lift a ban, however it is written in the table; whether there was one."""
    rows = cursor.execute(
        "SELECT rowid, subject FROM bans WHERE kind = ?", (subject.kind,)
    ).fetchall()
    lifted = [row for row, written in rows if _is_meant(subject, written)]
    cursor.executemany("DELETE FROM bans WHERE rowid = ?", [(row,) for row in lifted])
    return bool(lifted)


def kick(cursor: sqlite3.Cursor, subject: Subject) -> int:
    """Mark all their sessions to be ended by their proxies; how many there are."""
    if subject.kind == "player":
        return registry.kick(cursor, subject.name)
    return orders.kick_address(cursor, orders.network_of(subject.name))


def _is_meant(subject: Subject, written: object) -> bool:
    try:
        return subject_of(subject.kind, str(written)) == subject
    except ValueError:
        return False

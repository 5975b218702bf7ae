"""A session of this proxy as the farm sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from gameproxy.farm.slots import Place
from gameproxy.interfaces import Slot, SlotRequest, Waiting


@dataclass(eq=False, slots=True)
class Seat:
    """One session at the farm, from acquire to release.

    :param state: that of its row as far as it is known to be committed; empty before there is one.
    :param asked: whether there may be a row.
    :param failed: servers that did not let it in, not to be tried again.
    :param busy: servers that were full, to be tried again after ``retry_at``.
    :param result: what fires with its slot, while it waits for one.
    :param timeout: ends that waiting.
    :param told: what it was last told about its waiting.
    :param doubted_at: when it was last found to keep its player out, and asked whether its client is there.
    :param failures_before: how many starts of its game had failed when it began to wait for the first time.
    """

    request: SlotRequest
    on_waiting: Callable[[Waiting], None]
    state: str = ""
    asked: bool = True
    place: Place | None = None
    failed: list[str] = field(default_factory=list)
    busy: list[str] = field(default_factory=list)
    retry_at: float = 0.0
    result: Deferred[Slot] | None = None
    told: Waiting | None = None
    failures_before: int | None = None
    timeout: IDelayedCall | None = None
    deadline: float | None = None
    evicted: bool = False
    doubted_at: float | None = None

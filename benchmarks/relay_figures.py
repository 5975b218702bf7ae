"""From the windows of a run to its figures: medians, what a relay adds to no relay, and ratios to HAProxy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

Window = Mapping[str, Any]
PARTS = ("proxy", "load", "server", "kernel")
"""Whose processor time belongs to a round trip."""


@dataclass(frozen=True)
class Row:
    """One relay at one work: medians of its windows, and ratios to HAProxy.

    A ratio is not a number where there is no HAProxy, or nothing that it has added.

    :param rate: round trips a second.
    :param low: the rate of the slowest window, ``high`` of the fastest.
    :param proxy_us: processor time of the relay's process a round trip.
    :param added_us: that of all who take part, less that of all without a proxy.
    """

    rate: float
    low: float
    high: float
    p50_us: float
    p99_us: float
    proxy_us: float
    added_us: float
    rate_ratio: float
    p50_ratio: float
    added_ratio: float


def rows(windows: Sequence[Window], without: str, beside: str) -> dict[str, Row]:
    """The relays of one work by name, in the order in which their first windows come.

    :param windows: all of one work.
    :param without: what the windows without a proxy are called; ``beside``, those of HAProxy.
    :raises ValueError: there is no window without a proxy.
    """
    names = list(dict.fromkeys(window["kind"] for window in windows))
    if without not in names:
        raise ValueError(f"no window of {without!r}")
    of = {name: [window for window in windows if window["kind"] == name] for name in names}
    rate, p50, p99 = (
        {name: median(window[field] for window in of[name]) for name in names}
        for field in ("rate", "p50_us", "p99_us")
    )
    all_us = {name: median(map(total_us, of[name])) for name in names}
    added = {name: all_us[name] - all_us[without] for name in names}
    return {
        name: Row(
            rate=rate[name],
            low=min(window["rate"] for window in of[name]),
            high=max(window["rate"] for window in of[name]),
            p50_us=p50[name],
            p99_us=p99[name],
            proxy_us=median(window["cpu_us"]["proxy"] for window in of[name]),
            added_us=added[name],
            rate_ratio=ratio(rate[name], rate.get(beside)),
            p50_ratio=ratio(p50[name], p50.get(beside)),
            added_ratio=ratio(added[name], added.get(beside)),
        )
        for name in names
    }


def total_us(window: Window) -> float:
    """Processor time of all who take part in a round trip."""
    return float(sum(window["cpu_us"][part] for part in PARTS))


def ratio(value: float, of: float | None) -> float:
    """``value / of``; not a number if there is nothing that it could be a ratio to."""
    return value / of if of is not None and of > 0 else float("nan")


def share_of_target(value: float, target: float, more_is_better: bool) -> float:
    """How well a target is met: 1 is the target, more is better. What costs nothing at all is infinitely good."""
    if more_is_better:
        return value / target
    return target / value if value > 0 else float("inf")

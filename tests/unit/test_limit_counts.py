"""gameproxy.limit_counts: counts of limits that change"""

from __future__ import annotations

from gameproxy.limit_counts import LimitCounts


def test_modes_that_change() -> None:
    """What was counted stays as long as the mode does. A limit that was turned off is not counted, whoever breaks it
    still, and begins at 0 when it is on again."""
    counts = LimitCounts({"frames_per_second": "dry_run", "idle_seconds": "enforce"})
    sessions, units = counts.sessions, counts.units
    counts.count("frames_per_second", 7)
    counts.count("idle_seconds")
    counts.reconfigure({"frames_per_second": "enforce", "idle_seconds": "enforce"})
    assert counts.numbers() == {
        "frames_per_second_enforce_sessions": 0,
        "frames_per_second_enforce_units": 0,
        "idle_seconds_enforce_sessions": 1,
        "idle_seconds_enforce_units": 1,
    }
    counts.count("frames_per_second", 3, is_first=False)
    counts.reconfigure({"frames_per_second": "enforce", "idle_seconds": "off"})
    counts.count("idle_seconds")
    assert counts.numbers() == {
        "frames_per_second_enforce_sessions": 0,
        "frames_per_second_enforce_units": 3,
    }
    counts.reconfigure({"idle_seconds": "enforce"})
    assert (counts.sessions, counts.units) == ({"idle_seconds": 0}, {"idle_seconds": 0})
    assert (counts.sessions, counts.units) == (sessions, units)
    assert counts.sessions is sessions

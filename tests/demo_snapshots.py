"""Snapshots of a demo, for tests of what is shown."""

from __future__ import annotations

from gameproxy.cli.demo_facts import Event, Minute, RoundTrip, ServerRow, SetUp, Snapshot
from gameproxy.interfaces import Traffic

ADDRESS = "127.0.0.1:4123"


def snapshot(
    seconds: float = 2.0, servers: int = 2, selected: str | None = None, minute: int = 60
) -> Snapshot:
    """Ten sessions on some servers, the first of which is ready; the last minute as a rising line."""
    return Snapshot(
        seconds=seconds,
        servers=[
            ServerRow(
                id=f"arena-{number:06}",
                game="arena",
                state="starting" if number else "ready",
                capacity=8,
                connections=2,
                reserved=1,
                added=7,
                age=65.0,
                port=None if number else 40123,
                pid=None if number else 4567,
            )
            for number in range(servers)
        ],
        sessions={"relaying": 8, "selecting": 2},
        ended={"left": 3},
        traffic=Traffic(100, 2000, 100, 2000),
        bots=9,
        bots_most=10,
        minute=Minute(
            frames=[100.0 * (number + 1) / minute for number in range(minute)],
            bytes=[2000.0 * (number + 1) / minute for number in range(minute)],
            sessions=[10.0] * minute,
        ),
        set_up=SetUp(0.02, 1.1, 100),
        round_trip=RoundTrip(0.0003, 0.0005, 60),
        events=[Event(float(number), f"event {number}") for number in range(40)],
        selected=selected,
    )

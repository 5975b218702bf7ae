"""Game servers outlive their proxy; those of a test must not outlive the test."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing, suppress
from pathlib import Path


def end_game_servers(database: Path) -> None:
    """End what a proxy has started for the farm in this database."""
    if not database.exists():
        return
    with closing(sqlite3.connect(database)) as connection:
        rows = connection.execute(
            "SELECT pid FROM game_servers WHERE state <> 'closed' AND pid IS NOT NULL"
        ).fetchall()
    for (pid,) in rows:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)

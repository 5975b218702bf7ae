"""The farm's database, as commands use it: beside the proxies, and with none running."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from gameproxy.cli.reporting import CommandFailed
from gameproxy.farm.database import BUSY_TIMEOUT, text_of
from gameproxy.farm.upgrades import SCHEMA_VERSION


@contextmanager
def reading(database: Path) -> Iterator[sqlite3.Cursor]:
    """A look at one moment of the farm.

    :raises CommandFailed: there is no such database, or it cannot be used.
    """
    with _transaction(database, "ro", "BEGIN") as cursor:
        yield cursor


@contextmanager
def writing(database: Path) -> Iterator[sqlite3.Cursor]:
    """One transaction, which is undone when its body raises.

    :raises CommandFailed: there is no such database, or it cannot be used.
    """
    with _transaction(database, "rw", "BEGIN IMMEDIATE") as cursor:
        yield cursor


@contextmanager
def _transaction(database: Path, mode: str, begin: str) -> Iterator[sqlite3.Cursor]:
    try:
        found = database.exists()
    except OSError as error:
        raise CommandFailed(f"{database}: cannot be used: {error.strerror}") from error
    if not found:
        raise CommandFailed(f"{database}: there is no such database: has a proxy been started yet?")
    # A mode, so that SQLite never makes the file.
    uri = f"file:{quote(str(database))}?mode={mode}"
    try:
        with closing(
            sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
        ) as connection:
            connection.text_factory = text_of
            cursor = connection.cursor()
            cursor.execute(begin)
            _ensure_version(database, cursor)
            yield cursor
            cursor.execute("COMMIT")
    except sqlite3.Error as error:
        raise CommandFailed(f"{database}: cannot be used: {error}{_advice(database)}") from error


def _advice(database: Path) -> str:
    """What to do when the database is somebody else's."""
    if all(os.access(path, os.W_OK, effective_ids=True) for path in (database, database.parent)):
        return ""
    return f": it belongs to {_owner(database)}; give this command as that user"


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


def _ensure_version(database: Path, cursor: sqlite3.Cursor) -> None:
    version = cursor.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise CommandFailed(
            f"{database}: has version {version}, this gameproxy knows {SCHEMA_VERSION}: "
            "install a newer gameproxy"
        )
    if version < SCHEMA_VERSION:
        raise CommandFailed(
            f"{database}: has version {version}, this gameproxy needs {SCHEMA_VERSION}: "
            "start a proxy of this version, which brings it up to date"
        )

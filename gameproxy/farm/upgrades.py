"""The versions of the farm's schema: which one this program knows, and how an older database gets there."""

from __future__ import annotations

import sqlite3
from importlib import resources
from typing import Final, cast


class StoreError(Exception):
    """The database cannot be used until somebody does what the message says."""


def upgrade(cursor: sqlite3.Cursor) -> bool:
    """Bring the schema up to date, in the transaction that is open.

    :return: whether that was needed.
    :raises StoreError: the database is of a newer version of this program.
    """
    version = cast(int, cursor.execute("PRAGMA user_version").fetchone()[0])
    if version == SCHEMA_VERSION:
        return False
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the database has version {version}, this gameproxy knows {SCHEMA_VERSION}: "
            "install a newer gameproxy, or move the file away"
        )
    for number, script in _SCRIPTS:
        if number > version:
            for statement in _statements(script):
                cursor.execute(statement)
    cursor.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    return True


def _scripts() -> list[tuple[int, str]]:
    files = (file for file in resources.files(__package__).joinpath("schema").iterdir())
    return sorted(
        (int(file.name.removesuffix(".sql")), file.read_text("utf-8"))
        for file in files
        if file.name.endswith(".sql")
    )


def _statements(script: str) -> list[str]:
    """Its statements, one by one: executescript would commit what is open."""
    statements = []
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    return statements


_SCRIPTS: Final = _scripts()
SCHEMA_VERSION: Final = _SCRIPTS[-1][0]

"""Connections to a database of which a fault may lose the answer, when what was written is in the database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any, Self


def connections_that_lose_answers(written: Callable[[], object]) -> type[sqlite3.Connection]:
    """A class of connections.

    :param written: called after each transaction, and each statement without one, that has written something; what it
        raises takes the place of the answer.
    """

    class Cursor(sqlite3.Cursor):
        def execute(self, statement: str, values: Any = ()) -> Self:
            super().execute(statement, values)
            if statement.startswith(("COMMIT", "UPDATE")) and not self.connection.in_transaction:
                written()
            return self

    class Connection(sqlite3.Connection):
        def cursor(self, factory: Any = Cursor) -> Any:
            return super().cursor(factory)

    return Connection

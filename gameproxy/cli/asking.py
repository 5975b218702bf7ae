"""Asking running proxies, each at its control socket."""

from __future__ import annotations

import socket
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gameproxy.control import PATIENCE, control_path
from gameproxy.farm import LinuxProcesses, registry, reports
from gameproxy.strict_json import BadMessage, decode_object, encode_object

ANSWER_MAX: Final = 65536
"""Bytes of an answer at most."""
STATUS_PATIENCE: Final = 2.0
"""Seconds for what a proxy knows without asking anybody."""
ORDER_PATIENCE: Final = PATIENCE + 1.0
"""Seconds for what a proxy has to write into the database."""
_PIECE: Final = 8192


class NoAnswer(Exception):
    """A proxy does not answer; the text says how."""


class NobodyToAsk(NoAnswer):
    """No proxy could be asked, so that none has done anything; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a proxy said: what was asked for, or an error's code and message."""

    answer: dict[str, object] | None
    error: str = ""
    message: str = ""


def living_proxies(cursor: sqlite3.Cursor) -> list[dict[str, object]]:
    """The rows of the proxies, but those whose processes have certainly ended."""
    dead = registry.dead_proxies(cursor, LinuxProcesses())
    return [row for row in reports.proxy_rows(cursor) if row["id"] not in dead]


def ask(database: Path, proxy: object, patience: float, **request: object) -> Answer:
    """Ask one proxy.

    :param proxy: its id.
    :param patience: seconds until its answer must be complete.
    :raises NoAnswer: there was none, or none that makes sense.
    """
    deadline = time.monotonic() + patience
    received = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(patience)
            connection.connect(str(control_path(database, str(proxy))))
            connection.sendall(encode_object(request) + b"\n")
            while not received.endswith(b"\n"):
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
                piece = connection.recv(_PIECE)
                received += piece
                if not piece or len(received) > ANSWER_MAX:
                    raise NoAnswer("gives no whole answer")
    except TimeoutError:
        raise NoAnswer(f"does not answer within {patience:g} s") from None
    except (OSError, ValueError) as error:  # a zero byte in the id is a ValueError
        raise NoAnswer(f"cannot be asked: {error}") from None
    return _read(received)


def order(database: Path, proxies: Sequence[object], **request: object) -> Answer:
    """Have one proxy do something: the first that does not say that it does not know the game.

    A proxy that hangs is passed over; one that has been asked and gives no answer may have done it, and no other is
    asked then.

    :raises NobodyToAsk: no proxy can be asked.
    :raises NoAnswer: who was asked gives no answer.
    """
    unknown: Answer | None = None
    silent = []
    for proxy in proxies:
        try:
            ask(database, proxy, STATUS_PATIENCE, ask="status")
        except NoAnswer as error:
            silent.append(f"{proxy} {error}")
            continue
        try:
            answer = ask(database, proxy, ORDER_PATIENCE, **request)
        except NoAnswer as error:
            raise NoAnswer(f"{proxy} {error}; it may have done it") from None
        if answer.error != "unknown_game":
            return answer
        unknown = answer
    if unknown is None:
        raise NobodyToAsk("\n".join(["no proxy runs that could do it", *silent]))
    return unknown


def _read(line: bytes) -> Answer:
    try:
        match decode_object(line):
            case {"answer": dict(answer)}:
                return Answer(answer)
            case {"error": str(error), "message": str(message)}:
                return Answer(None, error, message)
    except BadMessage:
        pass
    raise NoAnswer("gives no answer that makes sense")

"""Listening, as whoever does it sees it: what went wrong at once, and where it is."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.python.failure import Failure


def address_of(port: IListeningPort) -> str:
    """Where it listens, for people."""
    address = port.getHost()
    host, number = getattr(address, "host", None), getattr(address, "port", None)
    return str(address) if host is None else f"{host}:{number}"


def raise_now(listening: Deferred[Any]) -> None:
    """Raise what has gone wrong already, so that a program that cannot listen does not start."""
    if listening.called and isinstance(listening.result, Failure):
        failure = listening.result
        listening.addErrback(lambda _: None)  # it is told
        failure.raiseException()

"""Running the process's reactor for one command."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.interfaces import IReactorCore
from twisted.internet.task import react

from gameproxy.interfaces import Reactor


class ProgramReactor(Reactor):
    """A program's own reactor, which tells when the program ends."""

    def addSystemEventTrigger(
        phase: str, eventType: str, callable: Callable[..., object], *args: object
    ) -> Any:
        """See :class:`twisted.internet.interfaces.IReactorCore`."""


def run_reactor(
    main: Callable[[ProgramReactor], Coroutine[Deferred[Any], Any, int]],
    reactor: IReactorCore | None = None,
) -> int:
    """Run the reactor until a command is done, or Ctrl-C or SIGTERM ends it.

    :param reactor: ``None``: the process's own.
    :param main: the command. Who wants to tidy up adds a trigger "before" "shutdown".
    :return: the exit status that ``main`` gave; 1 if it raised, which is logged; 0 if it was ended before.
    """

    def start(reactor: object) -> Deferred[Any]:
        return ensureDeferred(main(cast(ProgramReactor, reactor))).addCallback(_exit)

    try:
        react(start, _reactor=reactor)
    except SystemExit as end:
        return cast(int, end.code)


def _exit(status: int) -> None:
    raise SystemExit(status)

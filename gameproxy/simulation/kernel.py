"""The simulated world's time and events. One thread does it all.

Time is an integer of microseconds. Events of one moment happen in an order drawn by chance, as on real machines; but it
is the same chance at every run with the same seed.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from gameproxy.simulation.chance import stream
from gameproxy.simulation.machines import Machine
from gameproxy.simulation.network import Network
from gameproxy.simulation.trace import Trace

MICROSECONDS: Final = 1_000_000
"""Of a second."""
EPOCH: Final = 1_700_000_000 * MICROSECONDS
"""When a run begins, in microseconds since 1970."""
LIVELOCK: Final = 50_000
"""Events of one moment after which time is held to stand still for ever."""


class Livelock(Exception):
    """Time does not go on: the same moment has more and more events."""


class Event:
    """A call that is to come. :meth:`cancel` makes it nothing."""

    __slots__ = ("arguments", "call")

    def __init__(self, call: Callable[..., object], arguments: tuple[Any, ...]) -> None:
        self.call: Callable[..., object] | None = call
        self.arguments = arguments

    def cancel(self) -> None:
        self.call = None
        self.arguments = ()


class Kernel:
    """All machines of a run.

    :param seed: of all chance.
    :param trace: what is written about the run.
    :ivar now: microseconds since 1970, as all machines' clocks have it that are not made to differ.
    :ivar events: how many there were.
    :ivar reached: how often what may happen by chance has happened, by its name.
    :ivar on_event: called after each; for what must always hold.
    """

    def __init__(self, seed: int, trace: Trace | None = None) -> None:
        self.seed = seed
        self.trace = trace or Trace()
        self.now = EPOCH
        self.events = 0
        self.reached: dict[str, int] = {}
        self.on_event: Callable[[], object] = _nothing
        self.network = Network(self)
        self.machines: dict[str, Machine] = {}
        """By their own address."""
        self.routes: dict[str, Machine] = {}
        """By all addresses that lead to them."""
        self._names: dict[str, int] = {}
        self._heap: list[tuple[int, int, Event]] = []
        self._count = 0
        self._ties = stream(seed, "ties").getrandbits
        self._stopped = False

    def at(self, when: int, call: Callable[..., object], *arguments: Any) -> Event:
        """Call something at a moment, among what else is to come then in an order drawn by chance."""
        return self.after(when - self.now, call, *arguments)

    def after(self, delay: int, call: Callable[..., object], *arguments: Any) -> Event:
        """Call something in ``delay`` microseconds."""
        event = Event(call, arguments)
        self._count += 1
        # One number orders the events of a moment: chance first, then the count, so that no two are equal.
        order = self._ties(16) << 48 | self._count
        heappush(self._heap, (self.now + delay, order, event))
        return event

    def write(self, *words: object) -> None:
        """Add a line to the trace."""
        self.trace.write(self.now - EPOCH, *words)

    def reach(self, name: str) -> None:
        """Count that something has happened."""
        self.reached[name] = self.reached.get(name, 0) + 1

    def unique(self, name: str) -> str:
        """A name for the trace that nothing else in the run has."""
        count = self._names[name] = self._names.get(name, 0) + 1
        return name if count == 1 else f"{name}#{count}"

    def run(self, until: int | None = None) -> bool:
        """Let time go on.

        :param until: a moment at which to return, with nothing of later done; ``None``: when nothing is to come.
        :return: whether there is more to come.
        :raises Livelock: it does not go on.
        """
        heap, on_event = self._heap, self.on_event
        self._stopped = False
        at_once = 0
        while heap:
            when = heap[0][0]
            if until is not None and when > until:
                break
            event = heappop(heap)[2]
            call = event.call
            if call is None:
                continue
            if when != self.now:
                self.now = when
                at_once = 0
            else:
                at_once += 1
                if at_once > LIVELOCK:
                    raise Livelock(f"{at_once} events at {(self.now - EPOCH) / MICROSECONDS} s")
            self.events += 1
            call(*event.arguments)
            on_event()
            if self._stopped:
                return True
        if until is not None:
            self.now = max(self.now, until)
        return bool(heap)

    def stop(self) -> None:
        """Have :meth:`run` return after the event that is happening."""
        self._stopped = True

    def add_machine(self, name: str, address: str) -> Machine:
        """Add a machine.

        :param address: its IPv4 address, which no other has.
        """
        machine = self.machines[address] = Machine(self, name, address)
        self.routes[address] = machine
        return machine


def _nothing() -> None:
    """Nothing has to hold."""

"""The proxies of a simulated world: each is the real service, in a process of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final, cast

from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from gameproxy.farm import GameFarm
from gameproxy.host import Host
from gameproxy.interfaces import Reactor, SessionRecord
from gameproxy.service import GameProxy
from gameproxy.simulation.chance import entropy
from gameproxy.simulation.ledger import WatchedFarm
from gameproxy.simulation.lost_answers import connections_that_lose_answers
from gameproxy.simulation.machines import Process
from gameproxy.simulation.processes import SimProcesses
from gameproxy.simulation.reactor import SimReactor
from gameproxy.simulation.threads import SimThreadPool

if TYPE_CHECKING:
    from gameproxy.simulation.world import Simulation

FARM_ADDRESS: Final = "10.0.0.1"
"""Of the machine on which they run, with the game servers that they start."""
FIRST_PORT: Final = 7001


class SimProxy:
    """A proxy of a simulated world: the real service, in a process that can be killed and started again.

    :ivar service: the proxy that runs now.
    """

    service: GameProxy
    process: Process
    reactor: SimReactor
    database_threads: SimThreadPool

    def __init__(self, world: Simulation, number: int) -> None:
        self._world = world
        self.number = number
        self.port = FIRST_PORT + number
        self._starts = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect."""
        return FARM_ADDRESS, self.port

    @property
    def serves(self) -> bool:
        """Whether it has started."""
        return self.process.alive and bool(self.service.started.called)

    def start(self) -> None:
        """Start it, for the first time or again."""
        world = self._world
        self._starts += 1
        name = f"proxy{self.number}"
        self.process = world.farm_machine.start(name)
        self.reactor = reactor = SimReactor(self.process, world.programs.spawn)
        self.database_threads = SimThreadPool(self.process, "database")
        # What moves frames past Twisted's transports takes real descriptors, and loads a program into the real kernel.
        proxy = world.config.proxy.model_copy(
            update={
                "listen": (f"tcp:{self.port}:interface={FARM_ADDRESS}",),
                "relay": "transport",
            }
        )
        self.service = GameProxy(
            world.config.model_copy(update={"proxy": proxy}),
            cast(Reactor, reactor),
            on_session_end=self._session_ended,
            entropy=entropy(world.seed, name, self._starts),
            host=Host(
                processes=SimProcesses(self.process),
                environment={},
                ensure_descriptors=lambda _: None,
                database_threads=cast(ThreadPool, self.database_threads),
                password_threads=cast(ThreadPool, reactor.thread_pool),
                disturbs=world.disturbs,
            ),
            control=False,
        )
        store = self.service.farm._store
        store.restore = world.replacement.heard(self, store.restore)
        threads = self.database_threads
        store._database._pool.connkw["factory"] = connections_that_lose_answers(
            lambda: threads.fault_after()
        )
        self.service.farm = cast(
            GameFarm, WatchedFarm(self.service.farm, world.ledger, lambda: world.kernel.now)
        )
        world.write("start", self.process.name)
        self.service.started.addErrback(self._not_started)
        self.service.startService()

    def kill(self) -> None:
        """End it as SIGKILL does."""
        if self.process.alive:
            self._world.ledger.proxy_died([session.id for session in self.service.sessions])
            self._world.replacement.proxy_died(self.process.pid)
            self.process.end(by_signal=signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to stop, as SIGTERM does: it drains."""
        stopped = self.service.stopService()
        stopped.addBoth(lambda _: self._world.write("stopped", self.process.name))

    def heal(self) -> None:
        """Let nothing go wrong any more, and start it again if it was killed."""
        if not self.process.alive:
            self.start()

    def _session_ended(self, record: SessionRecord) -> None:
        self._world.write("over", record.session[:8], record.reason.value, record.server or "-")
        self._world.ledger.session_ended(record)

    def _not_started(self, failure: Failure) -> None:
        self._world.write("not started", self.process.name, type(failure.value).__name__)

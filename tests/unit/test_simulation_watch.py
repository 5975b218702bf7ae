"""What must hold in a simulated world is looked at while it runs, whoever breaks it."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.simulation.clients import Plan
from gameproxy.simulation.invariants import BUFFER_MAX, EARLY_MAX, SLACK, Watch
from gameproxy.simulation.kernel import MICROSECONDS
from gameproxy.simulation.proxies import FARM_ADDRESS, FIRST_PORT
from gameproxy.simulation.world import CLIENTS_ADDRESS, Simulation, SimulationFailed

PLAYERS = 5


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.sim = Simulation(4, wall_budget=30, proxies=2)
        self.addCleanup(self.sim.close)
        self.clients = self.sim.clients.make(PLAYERS, Plan(frames=1000, gap=0.1))
        self.clients.connect_all()
        self.sim.assert_reached(self.clients, server=True)

    def transport(self) -> Any:
        """A proxy's, to a client."""
        sockets = (s for proxy in self.sim.proxies for s in proxy.process.sockets.values())
        to_client = (s for s in sockets if not s.is_listening and s.local[1] == FIRST_PORT)
        return next(to_client).owner

    def session(self) -> Any:
        """One that plays."""
        return next(session for proxy in self.sim.proxies for session in proxy.service.sessions)

    def test_each_in_turn(self) -> None:
        """Whatever a proxy has is looked at within as many looks as there are sessions and connections."""
        seen: dict[object, None] = {}
        watch = Watch(self.sim)
        watch._look_at_session = lambda process, session: seen.update({session: None})  # type: ignore[method-assign]
        watch._look_at_socket = lambda socket: seen.update({socket: None})  # type: ignore[method-assign]
        every: list[object] = []
        for proxy in self.sim.proxies:
            every += [*proxy.service.sessions, *proxy.process.sockets.values()]
        self.assertGreater(len(every), 3 * PLAYERS)
        for _ in every:
            watch.look()
        self.assertEqual(list(seen), every)
        watch.look()  # the end of a round
        seen.clear()
        watch.look()
        self.assertEqual(list(seen), every[:1])

    def test_buffers(self) -> None:
        """What waits for a connection is bounded."""
        self.transport().write(bytes(2 * BUFFER_MAX))
        with pytest.raises(SimulationFailed, match="bytes wait for a connection"):
            self.sim.run_for(0.1)

    def test_early_bytes(self) -> None:
        """So is what is kept of what a client sent early."""
        self.session()._client._early += bytes(EARLY_MAX + 1)
        with pytest.raises(SimulationFailed, match="that came early"):
            self.sim.run_for(1)

    def test_states(self) -> None:
        """A session that stays where it has a deadline fails the run soon after it; one that plays does not."""
        self.sim.run_for(15)
        self.session().state = "authenticating"
        longest = self.sim.config.auth.timeout
        self.sim.run_for(longest)
        with pytest.raises(SimulationFailed, match="a session is authenticating for"):
            self.sim.run_for(2 * SLACK)

    def test_no_progress(self) -> None:
        """Somebody takes what waits for him in a full buffer, or in one that was and is not empty, or is let go of."""
        self.cut()
        self.transport().write(bytes(BUFFER_MAX // 2))
        self.sim.run_for(4)
        self.fails_for_no_progress()
        self.setUp()
        self.have_little_wait().producerPaused = True
        self.sim.run_for(4)
        self.fails_for_no_progress()

    def test_no_progress_at_the_end(self) -> None:
        """The same when the connection is to end, however little waits; until then that may wait for long."""
        for end in ("loseWriteConnection", "loseConnection"):
            self.setUp()
            transport = self.have_little_wait()
            self.sim.run_for(10)
            getattr(transport, end)()
            self.sim.run_for(4)
            self.fails_for_no_progress()

    def have_little_wait(self) -> Any:
        """A connection that is cut, and for which less waits than its buffer holds."""
        self.cut()
        transport = self.transport()
        transport.write(bytes(transport.bufferSize))  # which the system keeps
        self.sim.run_for(1)
        transport.write(b"little")
        self.sim.run_for(1)
        waits = len(transport.dataBuffer) + transport._tempDataLen
        self.assertTrue(0 < waits < transport.bufferSize, waits)
        return transport

    def cut(self) -> None:
        """From now on clients get nothing; what waits for them has to be taken in five seconds."""
        self.sim.kernel.network.cut(FARM_ADDRESS, CLIENTS_ADDRESS)
        self.sim._watch._longest_stall = 5 * MICROSECONDS

    def fails_for_no_progress(self) -> None:
        with pytest.raises(SimulationFailed, match="nobody takes what waits for a connection"):
            self.sim.run_for(2)

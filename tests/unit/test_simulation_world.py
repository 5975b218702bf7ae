"""The real service in a simulated world."""

from __future__ import annotations

import pytest
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.service import GameProxy
from gameproxy.simulation.clients import Plan
from gameproxy.simulation.world import Simulation, SimulationFailed, default_config


class WorldTests(SynchronousTestCase):
    def test_fifteen_come_and_go(self) -> None:
        """All get to a game server, and the farm's counts are theirs, then nobody's."""
        with Simulation(42, wall_budget=30) as sim:
            clients = sim.clients.batch(15)
            sim.assert_reached(clients, selection=True, server=True)
            sim.farm.assert_counts(connections=15, added=15, removed=0, within=5)
            clients.disconnect_all()
            sim.farm.assert_counts(connections=0, added=15, removed=15, within=5)
            sim.settle()

    def test_the_same_seed_is_the_same_run(self) -> None:
        """To the byte; and another seed is another run."""

        def trace(seed: int) -> list[str]:
            with Simulation(seed, wall_budget=30, keep_trace=True) as sim:
                sim.clients.make(20, Plan(frames=3)).connect_all()
                sim.run_for(5)
                sim.settle()
                return sim.kernel.trace.lines()

        first = trace(1)
        self.assertEqual(trace(1), first)
        self.assertNotEqual(trace(2), first)

    def test_nothing_is_loaded_into_the_kernel(self) -> None:
        """Whatever the configuration names, Twisted's transports move the frames of a simulated world."""
        usual = default_config()
        for relay in ("auto", "sockmap"):
            proxy = usual.proxy.model_copy(update={"relay": relay})
            config = usual.model_copy(update={"proxy": proxy})
            with Simulation(1, config=config, wall_budget=30) as sim:
                relays = sim.proxies[0].service._relays
                self.assertEqual(relays.state()["configured"], "transport")
                clients = sim.clients.batch(2)
                sim.assert_reached(clients, server=True)
                sim.settle()

    def test_all_have_ended(self) -> None:
        """Clients have ended when each of them has, and no more when one comes again."""
        with Simulation(5, wall_budget=30) as sim:
            clients = sim.clients.make(3, Plan(frames=1, stays=True))
            self.assertFalse(clients.have_ended)
            clients.connect_all()
            sim.assert_reached(clients, server=True)
            for client in (clients[1], clients[0]):
                client.disconnect()
                sim.run_for(1)
                self.assertTrue(client.has_ended)
                self.assertFalse(clients.have_ended)
            clients[2].disconnect()
            sim.run_until(lambda: clients.have_ended, 5)
            clients[0].connect()
            self.assertFalse(clients.have_ended)
            sim.settle()

    def test_virtual_budget(self) -> None:
        """A run that takes too long fails, and says where it was and how to have it again."""
        with Simulation(7, virtual_budget=2, wall_budget=30) as sim:
            with pytest.raises(SimulationFailed, match="virtual time") as failed:
                sim.run_for(3)
            self.assertIn("sim run --seed 7", str(failed.value))

    def test_wall_budget(self) -> None:
        """So does one that takes too long in real time."""
        with Simulation(7) as sim:
            sim.start()
            sim._wall_budget = 0.0
            sim.clients.batch(50)
            with pytest.raises(SimulationFailed, match="real time"):
                sim.run_for(30)

    def test_wrong_expectation(self) -> None:
        """A count that does not come about fails the run."""
        with Simulation(7, wall_budget=30) as sim:
            sim.clients.batch(2)
            with pytest.raises(SimulationFailed, match="not within 1 s"):
                sim.farm.assert_counts(connections=3, within=1)

    def test_what_is_logged_as_a_failure(self) -> None:
        """Fails the run, whichever way it is logged."""

        def accept(*_: object) -> None:
            raise ValueError("not let in")

        def tell(*_: object) -> None:
            Logger().failure("trouble", Failure(ValueError("not let in")))

        for raises, words in ((accept, "failed: not let in"), (tell, "trouble: not let in")):
            self.patch(GameProxy, "_accept", raises)
            with Simulation(7, wall_budget=30) as sim:
                sim.clients.batch(1)
                with pytest.raises(SimulationFailed, match=words):
                    sim.run_for(1)
            self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_killed_and_restarted(self) -> None:
        """A proxy that is killed leaves nothing behind when it is there again."""
        with Simulation(3, wall_budget=30) as sim:
            clients = sim.clients.batch(10)
            sim.assert_reached(clients, server=True)
            sim.proxies[0].kill()
            sim.run_for(1)
            sim.proxies[0].start()
            sim.farm.assert_counts(connections=0, within=20)
            again = sim.clients.batch(5)
            sim.assert_reached(again, server=True)
            sim.settle()

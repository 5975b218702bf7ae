"""Slots: taking, counting and giving back."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.farm_fixture import World, listed


class SlotTests(SynchronousTestCase):
    def world(self, *servers: object, **sections: object) -> World:
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        return World(folder / "farm.db", servers=servers, **sections)

    def test_a_slot_is_taken_counted_and_given_back(self) -> None:
        """A slot is reserved, then connected, then gone, and the server's row says so each time."""
        world = self.world(listed("a"))
        farm = world.proxy()
        client = world.client(farm)
        self.assertEqual((client.server, client.slots[0].port), ("a", 4001))
        self.assertEqual(world.counts("a"), (1, 0, 0, 0))
        farm.relaying(client.slots[0])
        world.reactor.settle()
        self.assertEqual(world.counts("a"), (0, 1, 1, 0))
        farm.release(client.session)
        farm.release(client.session)
        world.reactor.settle()
        self.assertEqual(world.counts("a"), (0, 0, 1, 1))

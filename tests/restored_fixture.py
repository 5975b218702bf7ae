"""A farm whose database is deleted, or gives way to a backup: what the tests of that share."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.farm import GameFarm
from tests.farm_fixture import Client, World


class ReplacingTestCase(SynchronousTestCase):
    """Has a world in a folder of its own, and does to its database what people do."""

    def world(self, *servers: object, **auth: Any) -> World:
        self.folder = Path(self.mktemp())
        self.folder.mkdir(parents=True)
        chess = {"name": "chess", "command": ["chessd"], "capacity": 2, "max_servers": 3}
        return World(self.folder / "farm.db", games=[chess], servers=servers, auth=auth)

    def relaying(self, world: World, farm: GameFarm, **identity: Any) -> Client:
        client = world.client(farm, **identity)
        farm.relaying(client.slots[0])
        world.reactor.settle()
        return client

    def back_up(self, world: World) -> None:
        world.sql(f"VACUUM INTO '{self.folder / 'backup.db'}'")

    def put_backup_back(self, world: World) -> None:
        (self.folder / "backup.db").rename(world.path)
        world.reactor.pass_time(1.0)

    def restore_backup(self, world: World) -> None:
        """As ``.restore`` of the sqlite3 shell does it, while all have the database open."""
        with (
            closing(sqlite3.connect(self.folder / "backup.db")) as backup,
            closing(sqlite3.connect(world.path)) as database,
        ):
            backup.backup(database)

    def delete(self, world: World) -> None:
        for name in self.folder.glob("farm.db*"):
            name.unlink()

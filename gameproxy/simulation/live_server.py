"""A real game server that no proxy starts: ``python -m gameproxy.simulation.live_server ID KEYFILE PORT CAPACITY``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

from gameproxy.arena.echo import Echo
from gameproxy.gameserver import GameServer, Place
from gameproxy.interfaces import Reactor
from gameproxy.keys import read_key_file
from gameproxy.loops.on_twisted import TwistedLoop
from gameproxy.simulation.live_processes import LISTENS, LOOPBACK


class _Announced(Echo):
    """Sends each frame back, and says where it listens."""

    def started(self, server: GameServer) -> None:
        print(LISTENS.format(server.port), flush=True)


def main(id: str, key_file: str, port: str, capacity: str) -> None:
    """Serve until SIGTERM."""
    from twisted.internet import reactor  # the program's own

    loop = TwistedLoop(cast(Reactor, reactor))
    loop.log_to_stderr()
    place = Place(id, read_key_file(Path(key_file)), LOOPBACK, int(port), int(capacity))
    server = GameServer(_Announced(), place, loop)
    loop.run(server.serve, server.drain)


if __name__ == "__main__":
    main(*sys.argv[1:])

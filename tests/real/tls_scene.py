"""A rig with a game server that is dialled by TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real.rig import Rig
from tests.real.streams import GameServer, Script, Stream, auth, echo


@dataclass
class Scene:
    """A rig with the game server ``secure`` of the game ``secure``."""

    rig: Rig
    server: GameServer

    async def refused(self, detail: str) -> None:
        """See that a session is told that the game server cannot be reached, and the operator why."""
        client = await self.rig.connect()
        client.send(auth(game="secure"))
        await self.rig.refused(client, "server_unreachable")
        assert self.rig.records[-1].detail == f"secure: {detail}"
        assert self.server.admits == []

    async def plays(self) -> Stream:
        """A client that relays with it."""
        client = await self.rig.join(game="secure")
        await client.echo(b"\x10" + bytes(100_000))
        return client


@asynccontextmanager
async def scene(
    folder: Path,
    tls: Any,
    more: str = 'servers_ca = "ca.pem"',
    server: str = "",
    script: Script = echo,
    **rig: Any,
) -> AsyncIterator[Scene]:
    """Put it up.

    :param tls: what the game server has; ``None``: it speaks none.
    :param more: what stands in ``[tls]``.
    :param server: more of its table.
    """
    game_server = GameServer("secure", script)
    await game_server.listen(tls)
    port = game_server.port.getHost().port
    try:
        async with Rig(
            folder,
            more=f"""
                [tls]
                {more}
                [[servers]]
                id = "secure"
                game = "secure"
                host = "127.0.0.1"
                port = {port}
                capacity = 20
                tls = true
                {server}
            """,
            **rig,
        ) as running:
            yield Scene(running, game_server)
    finally:
        for stream in game_server.streams:
            if not stream.lost:
                stream.reset()
        await game_server.port.stopListening()
    for fault in game_server.faults:
        fault.raiseException()

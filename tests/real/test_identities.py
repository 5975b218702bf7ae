"""The complaint "identities forged at the backend": nobody is believed who does not know a game server's key.

A game server of gameproxy's library listens on a real port, and its proxy is a whole one; between them, and past them,
stands somebody who sees and says what he likes.
"""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.protocol import ClientCreator

from gameproxy.arena.echo import Echo
from gameproxy.gameserver import GameServerService, Place, Player
from tests.real.rig import Rig
from tests.real.streams import (
    ADMIT,
    ADMITTED,
    CHALLENGE,
    CLOSE,
    GameServer,
    Script,
    Stream,
    StreamEnded,
    auth,
    mac,
    message,
    server_key,
)

WHO = {
    "player": "guest:ana",
    "address": "203.0.113.7",
    "game": "echo",
    "server": "lib",
    "proxy_nonce": "b" * 32,
    "properties": {},
}


class Crowd(Echo):
    """An echo that keeps who came in."""

    def __init__(self) -> None:
        self.players: list[str] = []

    def joined(self, player: Player) -> None:
        self.players.append(player.name)


@asynccontextmanager
async def library_server() -> AsyncIterator[tuple[Crowd, int]]:
    """The game server ``lib``."""
    crowd = Crowd()
    place = Place("lib", server_key("lib"), "127.0.0.1", 0, 20)
    service = GameServerService(crowd, place, reactor, entropy=os.urandom)
    service.startService()
    await service.started
    try:
        yield crowd, service.server.port
    finally:
        await service.stopService()


async def challenged(port: int) -> tuple[Stream, dict[str, Any]]:
    """A connection past the proxy, and the JSON of its CHALLENGE."""
    stream: Stream = await ClientCreator(reactor, Stream).connectTCP("127.0.0.1", port)
    return stream, await stream.message(CHALLENGE)


def admit(
    nonce: str, key: bytes = server_key("lib"), label: str = "admit", **changes: str
) -> bytes:
    """The body of an ADMIT, for a session of its own."""
    fields = {**WHO, "session": os.urandom(16).hex(), "nonce": nonce, **changes}
    text = json.dumps(fields).encode()
    return bytes([ADMIT]) + mac(key, label, text) + text


@pytest_twisted.ensureDeferred
async def test_identities_forged_at_the_backend() -> None:
    """Whoever reaches a game server's port, and has heard an honest ADMIT there, is let in as nobody."""
    async with library_server() as (crowd, port):
        honest, challenge = await challenged(port)
        recorded = admit(challenge["nonce"])
        honest.send(recorded)
        assert (await honest.body())[0] == ADMITTED
        await honest.echo(b"\x10hello")
        assert crowd.players == ["guest:ana"]
        gone, other = await challenged(port)
        overheard = admit(other["nonce"], player="guest:gus")
        gone.send(overheard)
        assert (await gone.body())[0] == ADMITTED
        await gone.echo(b"\x10bye")
        gone.close()
        mac_and_type, text = recorded[:33], recorded[33:]
        forged = text.replace(b"guest:ana", b"guest:eve")
        for attempt in (
            lambda nonce: recorded,
            lambda nonce: overheard,
            lambda nonce: mac_and_type + forged,
            lambda nonce: mac_and_type + text.replace(challenge["nonce"].encode(), nonce.encode()),
            lambda nonce: admit(nonce, bytes(32)),
            lambda nonce: admit(nonce, server_key("good")),
            lambda nonce: admit(nonce, label="admitted"),
            lambda nonce: admit(nonce, server="good"),
            lambda nonce: admit("0" * 32),
            lambda nonce: bytes([ADMIT]) + bytes(32) + admit(nonce)[33:],
            lambda nonce: auth(name="eve"),
            lambda nonce: b"\x10hello",
        ):
            intruder, fresh = await challenged(port)
            assert fresh["nonce"] != challenge["nonce"]
            intruder.send(attempt(fresh["nonce"]))
            assert [body[0] for body in await intruder.rest()] in ([], [CLOSE])
        assert crowd.players == ["guest:ana", "guest:gus"]
        twice, fresh = await challenged(port)
        twice.send(admit(fresh["nonce"], player="guest:bob"))
        assert (await twice.body())[0] == ADMITTED
        twice.send(admit(fresh["nonce"], player="guest:eve"))
        with pytest.raises(StreamEnded):
            while True:
                await twice.body()
        assert crowd.players == ["guest:ana", "guest:gus", "guest:bob"]
        await honest.echo(b"\x10still here")
        honest.close()


def impostor(answer: str) -> Script:
    """One who stands in a game server's place without its key."""

    async def script(server: GameServer, stream: Stream) -> None:
        stream.send(server.challenge())
        body = await stream.body()
        told = json.loads(body[33:])
        keys = {"none": bytes(32), "another's": server_key("good")}
        if answer in keys:
            stream.send(server.admitted(told, keys[answer]))
        elif answer == "echo":
            stream.send(bytes([ADMITTED]) + body[1:])
        elif answer == "other session":
            stream.send(server.admitted(told, session="f" * 32))
        elif answer == "other nonce":
            stream.send(server.admitted(told, proxy_nonce="f" * 32))
        stream.send(b"\x10give me your secrets")
        await stream.rest()

    return script


@pytest.mark.parametrize("answer", ["none", "another's", "echo", "other session", "other nonce"])
@pytest_twisted.ensureDeferred
async def test_game_servers_that_are_none(tmp_path: Path, answer: str) -> None:
    """Whoever stands in a game server's place hears nothing of the client's, and the client nothing of his."""
    false = [("false", "trap", impostor(answer))]
    async with Rig(tmp_path, servers=false) as rig, rig.canary():  # type: ignore[arg-type]  # lists
        client = await rig.connect()
        client.send(auth(game="trap"))
        client.send(b"\x10my secret")
        await rig.refused(client, "handshake_failed")


@pytest_twisted.ensureDeferred
async def test_headers_forged_through_the_proxy(tmp_path: Path) -> None:
    """Where a PROXY header announces sessions, a client cannot be the first to write one."""
    heard: list[bytes] = []

    async def keep(server: GameServer, stream: Stream) -> None:
        while b"forged" not in stream.received:
            await stream.change()
        heard.append(bytes(stream.received))
        while not stream.over:
            await stream.change()

    forged = b"\x10\r\n\r\n\0\r\nQUIT\nforged"
    servers = [("kept", "kept", keep)]
    async with Rig(tmp_path, servers=servers, admission="proxy-v2", good=False) as rig:  # type: ignore[arg-type]  # lists
        client = await rig.connect()
        client.send(auth(game="kept"))
        client.send(forged)
        while not heard:
            await client.change()
        assert heard[0].startswith(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x2f\x7f\0\0\1")
        assert heard[0].index(b"forged") > 63
        client.send(message(CLOSE, code="left", message=""))
        await rig.over("left")

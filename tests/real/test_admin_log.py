"""What other proxies' users suffer from: "junk packets that flood the log". Real sockets, and a real file."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol

from gameproxy.sparing_log import PAUSE
from tests.real.rig import Rig
from tests.real.streams import CLOSE, message, until

CONNECTIONS = 2000
AT_ONCE = 20
"""Connections of junk at a time: fewer than the system lets wait, so that none is delayed by it."""
JSON_LOG = '[log]\njson_file = "proxy.jsonl"'
HOSTILE = json.dumps({"protocol": 1, "mechanism": "ticket", "ticket": "\x1b[2J\u202e\n"}).encode()
JUNK = {
    "packets of no protocol": b"\xff\xfe\x1b[2J GET / HTTP/1.1\r\n\r\n",
    "connect and close": b"",
    "wrong credentials": struct.pack(">I", len(HOSTILE) + 1) + b"\x01" + HOSTILE,
}


class Junk(Protocol):
    """Sends what it has to, hears the end of it, and goes."""

    def __init__(self) -> None:
        self.gone: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(self.factory.data)
        if not self.factory.data:
            self.transport.loseConnection()

    def connectionLost(self, reason: object = None) -> None:
        self.gone.callback(None)


async def flood(port: int, data: bytes) -> None:
    """As fast as it can be done."""
    factory = Factory.forProtocol(Junk)
    factory.noisy = False
    factory.data = data
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)

    async def some() -> None:
        for _ in range(CONNECTIONS // AT_ONCE):
            one: Any = await endpoint.connect(factory)
            await one.gone

    await gatherResults([Deferred.fromCoroutine(some()) for _ in range(AT_ONCE)])


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The log for programs; each line is a JSON object in ASCII."""
    text = (folder / "proxy.jsonl").read_bytes()
    assert re.fullmatch(rb"[ -~\n]*", text), "something unescaped in the log"
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("kind", JUNK)
@pytest_twisted.ensureDeferred
async def test_junk_packets_that_flood_the_log(kind: str, tmp_path: Path) -> None:
    """However many connections of junk come, the log has a line a second for each reason why they ended, with how many
    were left out; nothing of them is unescaped. Who plays meanwhile plays on, and has a line of its own."""
    async with Rig(tmp_path, proxy_settings=JSON_LOG) as rig:
        player = await rig.join(name="honest")
        began = reactor.seconds()
        flooding = Deferred.fromCoroutine(flood(rig.port, JUNK[kind]))
        echoes = 0
        while not flooding.called:
            await player.echo(b"\x10still here")
            echoes += 1
        await flooding
        await until(lambda: [] if len(rig.records) == CONNECTIONS else [str(len(rig.records))])
        lasted = reactor.seconds() - began
        player.send(message(CLOSE, code="left", message="bye"))
        assert await player.rest() == []
    ends = [line for line in lines_of(tmp_path) if line.get("event") == "session_end"]
    of_junk = [line for line in ends if line["player"] is None]
    reasons = {line["reason"] for line in of_junk}
    assert len(of_junk) <= len(reasons) * (lasted / PAUSE + 2)
    assert len(of_junk) + sum(line.get("left_out", 0) for line in of_junk) == CONNECTIONS
    (honest,) = [line for line in ends if line["player"] is not None]
    assert (honest["player"], honest["reason"]) == ("guest:honest", "left")
    assert (honest["client_frames"], honest["server_frames"]) == (echoes, echoes)
    assert (tmp_path / "proxy.jsonl").stat().st_size < 1000 * (len(ends) + 10)

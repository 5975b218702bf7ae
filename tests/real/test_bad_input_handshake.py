"""Bad game servers in the handshake: the session gets its code, and its connections are closed in time.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted

from tests.real.rig import (
    Rig,
)
from tests.real.streams import (
    ADMIT,
    ADMITTED,
    CHALLENGE,
    CLOSE,
    KICK,
    REFUSED,
    WELCOME,
    GameServer,
    Script,
    Stream,
    StubbornStream,
    auth,
    frame,
    mac,
    message,
    promptly,
    server_key,
)

OTHER_NONCE = "f" * 32


def says(*sent: bytes) -> Script:
    """A game server that sends this at once, and then nothing."""

    async def script(server: GameServer, stream: Stream) -> None:
        for data in sent:
            stream.send_raw(data)
        await stream.rest()

    return script


def challenges(**changes: object) -> Script:
    """A game server whose CHALLENGE differs from what it should be."""

    async def script(server: GameServer, stream: Stream) -> None:
        stream.send(server.challenge(**changes))
        assert await stream.rest() == [], "ADMIT came"

    return script


Answer = Callable[[GameServer, dict[str, Any]], bytes]


def answers(answer: Answer) -> Script:
    """A game server that answers a good ADMIT with this body."""

    async def script(server: GameServer, stream: Stream) -> None:
        admit = await server.take_admit(stream)
        stream.send(answer(server, admit))
        await stream.rest()

    return script


def _signed(server: GameServer, text: bytes) -> bytes:
    return bytes([ADMITTED]) + mac(server.key, "admitted", text) + text


def _flip(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


async def _not_challenged(server: GameServer, stream: Stream) -> None:
    stream.send(server.admitted({"session": "0" * 32, "proxy_nonce": "0" * 32}))
    await stream.rest()


async def _challenges_twice(server: GameServer, stream: Stream) -> None:
    await server.take_admit(stream)
    stream.send(server.challenge())
    await stream.rest()


async def _challenges_twice_at_once(server: GameServer, stream: Stream) -> None:
    stream.send_raw(frame(server.challenge()) * 2)
    await stream.rest()


async def closes_at_once(server: GameServer, stream: Stream) -> None:
    stream.close()


async def _resets_at_once(server: GameServer, stream: Stream) -> None:
    stream.reset()


async def _closes_after_challenge(server: GameServer, stream: Stream) -> None:
    stream.send(server.challenge())
    stream.close()


async def _closes_after_admit(server: GameServer, stream: Stream) -> None:
    await server.take_admit(stream)
    stream.close()


async def _resets_after_admit(server: GameServer, stream: Stream) -> None:
    await server.take_admit(stream)
    stream.reset()


async def _closes_in_admitted(server: GameServer, stream: Stream) -> None:
    admit = await server.take_admit(stream)
    stream.send_raw(frame(server.admitted(admit))[:-1])
    stream.close()


HANDSHAKES: dict[str, Script] = {
    "http": says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "ssh": says(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "all ones": says(b"\xff" * 5000),
    "oversize": says(struct.pack(">I", 4097)),
    "oversize challenge": says(frame(message(CHALLENGE, protocol=1, z="x" * 4096))),
    "empty frame": says(frame(b"")),
    "game frame": says(frame(b"\x10hello")),
    "settings": says(frame(b"\x03hello")),
    "welcome": says(frame(message(WELCOME, session="x", player="x", server="x", game="x"))),
    "error": says(frame(message(0x05, code="internal", message="x"))),
    "close": says(frame(message(CLOSE, code="left", message="x"))),
    "kick": says(frame(message(KICK, code="kicked", message="x", ban_for=1000))),
    "admit": says(frame(bytes([ADMIT]) + bytes(32) + b"{}")),
    "not JSON": says(frame(bytes([CHALLENGE]) + b"{")),
    "a list": says(frame(bytes([CHALLENGE]) + b"[]")),
    "not UTF-8": says(frame(bytes([CHALLENGE]) + b"\xff")),
    "refused without JSON": says(frame(bytes([REFUSED]))),
    "refused without code": says(frame(message(REFUSED, message="x"))),
    "refused in numbers": says(frame(message(REFUSED, code=1, message=2))),
    "twice the key": says(
        frame(
            bytes([CHALLENGE])
            + b'{"protocol":1,"server":"bad","server":"bad","nonce":"'
            + b"0" * 32
            + b'"}'
        )
    ),
    "wrong id": challenges(server="good"),
    "no id": challenges(server=None),
    "id in another case": challenges(server="BAD"),
    "id is a number": challenges(server=1),
    "no nonce": challenges(nonce=None),
    "short nonce": challenges(nonce="0" * 30),
    "long nonce": challenges(nonce="0" * 34),
    "upper-case nonce": challenges(nonce="A" * 32),
    "nonce is a number": challenges(nonce=12345),
    "no protocol": challenges(protocol=None),
    "another protocol": challenges(protocol=2),
    "protocol is text": challenges(protocol="1"),
    "admitted without a challenge": _not_challenged,
    "challenge twice": _challenges_twice,
    "challenge twice at once": _challenges_twice_at_once,
    "wrong MAC": answers(lambda server, admit: _flip(server.admitted(admit), 5)),
    "zero MAC": answers(
        lambda server, admit: bytes([ADMITTED]) + bytes(32) + server.admitted(admit)[33:]
    ),
    "changed JSON": answers(lambda server, admit: server.admitted(admit) + b" "),
    "another server's key": answers(
        lambda server, admit: server.admitted(admit, key=server_key("good"))
    ),
    "an empty key": answers(lambda server, admit: server.admitted(admit, key=bytes(32))),
    "another session": answers(lambda server, admit: server.admitted(admit, session="0" * 32)),
    "another nonce": answers(lambda server, admit: server.admitted(admit, proxy_nonce=OTHER_NONCE)),
    "its own nonce": answers(
        lambda server, admit: server.admitted(admit, proxy_nonce=admit["nonce"])
    ),
    "no session": answers(
        lambda server, admit: _signed(
            server, json.dumps({"proxy_nonce": admit["proxy_nonce"]}).encode()
        )
    ),
    "no nonce in admitted": answers(
        lambda server, admit: _signed(server, json.dumps({"session": admit["session"]}).encode())
    ),
    "signed text": answers(lambda server, admit: _signed(server, b"hello")),
    "signed nothing": answers(lambda server, admit: _signed(server, b"")),
    "signed twice the key": answers(
        lambda server, admit: _signed(
            server,
            (
                '{{"session":"{session}","session":"{session}","proxy_nonce":"{proxy_nonce}"}}'.format(
                    **admit
                )
            ).encode(),
        )
    ),
    "the label of ADMIT": answers(
        lambda server, admit: (
            bytes([ADMITTED])
            + mac(server.key, "admit", server.admitted(admit)[33:])
            + server.admitted(admit)[33:]
        )
    ),
    "half a MAC": answers(lambda server, admit: bytes([ADMITTED]) + bytes(16)),
    "nothing in admitted": answers(lambda server, admit: bytes([ADMITTED])),
    "game frame for admitted": answers(lambda server, admit: b"\x10hello"),
    "kick for admitted": answers(
        lambda server, admit: message(KICK, code="kicked", message="x", ban_for=1000)
    ),
    "oversize admitted": answers(
        lambda server, admit: _signed(server, b'{"z":"' + b"x" * 4096 + b'"}')
    ),
    "closes at once": closes_at_once,
    "resets at once": _resets_at_once,
    "closes after challenge": _closes_after_challenge,
    "closes after admit": _closes_after_admit,
    "resets after admit": _resets_after_admit,
    "closes in admitted": _closes_in_admitted,
}


@pytest.mark.parametrize("script", HANDSHAKES.values(), ids=HANDSHAKES.keys())
@pytest_twisted.ensureDeferred
async def test_bad_handshake(tmp_path: Path, script: Script) -> None:
    """What a game server does wrong before ADMITTED is handshake_failed, at once; nobody is banned for it."""
    async with Rig(tmp_path, servers=[("bad", "chess", script)]) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(frame(auth(game="chess")) + frame(b"\x10early"))
        with promptly():
            await rig.refused(client, "handshake_failed")
        assert rig.query("SELECT * FROM bans") == []


async def _takes_admit(server: GameServer, stream: Stream) -> None:
    await server.take_admit(stream)
    await stream.rest()


async def _half_of_admitted(server: GameServer, stream: Stream) -> None:
    await server.take_admit(stream)
    stream.send_raw(struct.pack(">I", 4096) + bytes([ADMITTED]))
    await stream.rest()


@pytest.mark.parametrize(
    "script",
    [says(), says(b"\0\0"), _takes_admit, _half_of_admitted],
    ids=["nothing", "half a header", "no answer to ADMIT", "half of ADMITTED"],
)
@pytest_twisted.ensureDeferred
async def test_backends_that_accept_and_then_stall(tmp_path: Path, script: Script) -> None:
    """A game server that accepts and then stalls is handshake_failed after handshake_timeout."""
    async with Rig(tmp_path, servers=[("slow", "chess", script)], timeout=1.0) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game="chess"))
        with promptly(0.9):
            await rig.refused(client, "handshake_failed")


@pytest_twisted.ensureDeferred
async def test_never_closes(tmp_path: Path) -> None:
    """A game server that failed and keeps its side open is let go after a second."""
    async with Rig(tmp_path, servers=[("bad", "chess", says(frame(b"\x10")))]) as rig, rig.canary():
        bad = rig.game_servers["bad"]
        bad.kind = StubbornStream
        client = await rig.connect()
        client.send(auth(game="chess"))
        with promptly(0.8):
            await rig.refused(client, "handshake_failed")
            await bad.streams[0].broken()


@pytest_twisted.ensureDeferred
async def test_replayed_admitted(tmp_path: Path) -> None:
    """The ADMITTED of an earlier session lets nobody in, and neither does that of one at the same time."""
    kept: list[bytes] = []

    async def replays(server: GameServer, stream: Stream) -> None:
        admit = await server.take_admit(stream)
        kept.append(server.admitted(admit))
        stream.send(kept[0])
        await stream.until_close()

    async with Rig(tmp_path, servers=[("bad", "chess", replays)]) as rig, rig.canary(lines=2):
        first = await rig.join("chess")
        second = await rig.connect()
        second.send(auth(game="chess"))
        await rig.refused(second, "handshake_failed")
        assert not first.over
        first.close()
        await rig.over("client_lost")


@pytest_twisted.ensureDeferred
async def test_swapped_admitted(tmp_path: Path) -> None:
    """Two sessions that get each other's ADMITTED are both handshake_failed."""
    streams: list[Stream] = []
    admitted: list[bytes] = []

    async def swaps(server: GameServer, stream: Stream) -> None:
        admit = await server.take_admit(stream)
        streams.append(stream)
        admitted.append(server.admitted(admit))
        if len(streams) == 2:
            streams[0].send(admitted[1])
            streams[1].send(admitted[0])
        await stream.rest()

    async with Rig(tmp_path, servers=[("bad", "chess", swaps)]) as rig, rig.canary(lines=2):
        clients = [await rig.connect() for _ in range(2)]
        for client in clients:
            client.send(auth(game="chess"))
        for client in clients:
            await rig.refused(client, "handshake_failed")


@pytest_twisted.ensureDeferred
async def test_unknown_keys(tmp_path: Path) -> None:
    """Keys that the proxy does not know are ignored, in CHALLENGE and in ADMITTED."""

    async def newer(server: GameServer, stream: Stream) -> None:
        stream.send(server.challenge(colour="red", depth={"a": [1]}))
        body = await stream.body()
        stream.send(server.admitted(json.loads(body[33:]), colour="red"))
        await stream.until_close()

    async with Rig(tmp_path, servers=[("new", "chess", newer)]) as rig, rig.canary():
        client = await rig.join("chess")
        client.close()
        await rig.over("client_lost")

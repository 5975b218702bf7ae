"""Bad clients: each gets its code and a closed connection in time, and nobody else notices.

Every test has another session relay at the same time, and sees in the end that nothing is left (tests/real/rig.py).
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor

from tests.real.rig import (
    Rig,
)
from tests.real.streams import (
    AUTH,
    PROMPT,
    WELCOME,
    GameServer,
    Stream,
    auth,
    echo,
    frame,
    message,
    pause,
    promptly,
    until,
)

NATIVE_LIMIT = 2_097_151


def raw_auth(json: bytes) -> bytes:
    """A frame of AUTH with this payload."""
    return frame(bytes([AUTH]) + json)


# Before AUTH: frames


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff\xff\xff\xff",
        struct.pack(">I", NATIVE_LIMIT + 1),
        struct.pack(">I", NATIVE_LIMIT),
        struct.pack(">I", 4097),
        struct.pack(">I", 4097) + auth()[:1],
        frame(auth(properties={"a": "x"}) + b" " * 4096),
        b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(200)),
        frame(b""),
        frame(b"\x10game"),
        frame(b"\xff" * 4096),
        *[frame(message(type_, code="left", message="x")) for type_ in range(16) if type_ != AUTH],
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_first_frame(tmp_path: Path, sent: bytes) -> None:
    """What is not a frame, is too large, or is no AUTH is a protocol_error at once, not after auth.timeout."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(sent)
        with promptly():
            await rig.refused(client, "protocol_error")


@pytest.mark.parametrize("value", [0, 1])
@pytest_twisted.ensureDeferred
async def test_negative_length(tmp_path: Path, value: int) -> None:
    """A length that is negative after adjustment is a protocol_error, before AUTH and while relaying."""
    bad = struct.pack("<H", value)
    async with Rig(tmp_path, format="int16-le-inclusive") as rig, rig.canary(lines=2):
        client = await rig.connect()
        client.send_raw(bad)
        await rig.refused(client, "protocol_error")
        client = await rig.join()
        client.send_raw(bad)
        assert await rig.closed(client, "protocol_error") == []
        await rig.over("protocol_error")


@pytest.mark.parametrize("bad", [b"\x80" * 3, b"\xff\xff\xff\x7f", b"\xff" * 1000])
@pytest_twisted.ensureDeferred
async def test_endless_varint(tmp_path: Path, bad: bytes) -> None:
    """A varint that is too long is a protocol_error as soon as that is clear, before AUTH and while relaying."""
    async with Rig(tmp_path, format="varint") as rig, rig.canary(lines=2):
        client = await rig.connect()
        client.send_raw(bad)
        with promptly():
            await rig.refused(client, "protocol_error")
        client = await rig.join()
        client.send_raw(bad)
        assert await rig.closed(client, "protocol_error") == []
        await rig.over("protocol_error")


@pytest.mark.parametrize(
    "sent",
    [b"", b"\0\0\0", frame(auth())[:-1]],
    ids=["nothing", "half a header", "all but a byte"],
)
@pytest_twisted.ensureDeferred
async def test_never_completes(tmp_path: Path, sent: bytes) -> None:
    """A frame that never completes ends with auth_timeout, after auth.timeout."""
    async with Rig(tmp_path, timeout=1.0) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(sent)
        with promptly(0.9):
            await rig.refused(client, "auth_timeout")


@pytest_twisted.ensureDeferred
async def test_one_byte_at_a_time(tmp_path: Path) -> None:
    """Bytes that trickle in do not put off auth.timeout."""
    async with Rig(tmp_path, timeout=1.0) as rig, rig.canary():
        client = await rig.connect()
        started = reactor.seconds()
        for byte in struct.pack(">I", 4096) + auth():
            if client.over:
                break
            client.send_raw(bytes([byte]))
            await pause(0.03)
        assert 0.9 < reactor.seconds() - started < PROMPT
        await rig.refused(client, "auth_timeout")


@pytest_twisted.ensureDeferred
async def test_slow_but_in_time(tmp_path: Path) -> None:
    """AUTH that comes byte by byte, in time, is as good as any."""
    async with Rig(tmp_path) as rig:
        client = await rig.connect()
        for byte in frame(auth(game="echo")):
            client.send_raw(bytes([byte]))
            await pause(0)
        await client.message(WELCOME)
        client.close()
        await rig.over("client_lost")


# AUTH

NO_AUTH = [
    b"",
    b" ",
    b"{",
    b"{}",
    b"[]",
    b"1",
    b"null",
    b'"guest"',
    b"hello",
    b"\xff\xfe{}",
    b'{"protocol":1,"mechanism":"guest","name":"\xe9"}',
    b'{"protocol":1,"mechanism":"guest","name":"\xc0\xaf"}',
    b'{"protocol":1,"mechanism":"guest","name":"\xed\xa0\x80"}',
    b'\xef\xbb\xbf{"protocol":1,"mechanism":"guest","name":"x"}',
    json.dumps({"protocol": 1, "mechanism": "guest", "name": "x"}).encode("utf-16"),
    b'{"protocol":1,"mechanism":"guest","name":"x"} {}',
    b'{"protocol":1,"mechanism":"guest","name":"x"}\0',
    b'{"protocol":1,"mechanism":"guest","name":"x",}',
    b"{'protocol':1,'mechanism':'guest','name':'x'}",
    b'{"protocol":1,"mechanism":"guest","name":"a\nb"}',
    b'{"protocol":1,"mechanism":"guest","name":"x","z":NaN}',
    b'{"protocol":1,"mechanism":"guest","name":"x","z":-Infinity}',
    b'{"protocol":1,"mechanism":"guest","name":"x","z":01}',
    b'{"protocol":1,"mechanism":"guest","name":"x","name":"y"}',
    b'{"protocol":1,"protocol":1,"mechanism":"guest","name":"x"}',
    b'{"protocol":1,"mechanism":"guest","name":"x","n\\u0061me":"y"}',
    b'{"protocol":1,"mechanism":"guest","name":"x","z":1,"z":1}',
    b'{"protocol":1,"mechanism":"guest","name":"x","properties":{"a":1,"a":2}}',
    b'{"protocol":1,"mechanism":"guest","name":"x","z":[{"a":1,"a":2}]}',
    b'{"mechanism":"guest","name":"x"}',
    b'{"protocol":1,"name":"x"}',
    b"[" * 4095,
    b'{"a":' * 800,
    b'{"protocol":1,"mechanism":"guest","name":"x","z":' + b"[" * 2000 + b"]" * 2000 + b"}",
]
"""What is no AUTH at all, or lacks what it must have."""

WRONG_TYPES = [
    *[("protocol", value) for value in ("1", 1.5, True, [], {}, [1])],
    *[
        (name, value)
        for name in ("mechanism", "name", "ticket", "username", "password", "game")
        for value in (1, True, [], {}, ["x"])
    ],
    *[("properties", value) for value in (1, True, [], "x", "{}")],
]


@pytest.mark.parametrize("payload", NO_AUTH)
@pytest_twisted.ensureDeferred
async def test_auth_is_no_auth(tmp_path: Path, payload: bytes) -> None:
    """AUTH that is not one JSON object in UTF-8, has a key twice, or lacks protocol or mechanism: protocol_error."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(raw_auth(payload))
        await rig.refused(client, "protocol_error")


@pytest.mark.parametrize(("name", "value"), WRONG_TYPES)
@pytest_twisted.ensureDeferred
async def test_wrong_type(tmp_path: Path, name: str, value: object) -> None:
    """A field of a wrong type is a protocol_error, whatever the mechanism."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(**{"game": "echo", name: value}))
        await rig.refused(client, "protocol_error")


@pytest.mark.parametrize(
    "name", ["protocol", "mechanism", "name", "ticket", "username", "game", "properties"]
)
@pytest_twisted.ensureDeferred
async def test_null(tmp_path: Path, name: str) -> None:
    """null is no string, number or object."""
    fields = {"protocol": 1, "mechanism": "guest", "name": "x", "game": "echo", name: None}
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(raw_auth(json.dumps(fields).encode()))
        await rig.refused(client, "protocol_error")


@pytest.mark.parametrize("protocol", [0, 2, -1, 10**3000])
@pytest_twisted.ensureDeferred
async def test_unknown_protocol(tmp_path: Path, protocol: int) -> None:
    """Another protocol is unsupported_version."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(protocol=protocol))
        await rig.refused(client, "unsupported_version")


@pytest.mark.parametrize(
    "fields",
    [
        {"mechanism": ""},
        {"mechanism": "magic"},
        {"mechanism": "Guest"},
        {"mechanism": "guest "},
        {"mechanism": "guest", "name": None},
        {"mechanism": "ticket", "ticket": "x.y.z"},
        {"mechanism": "ticket"},
        {"mechanism": "password", "username": "u", "password": "p"},
        {"mechanism": "password", "username": "u"},
        {"mechanism": "password"},
        {"mechanism": "\x1b[31mred\r\n"},
    ],
)
@pytest_twisted.ensureDeferred
async def test_mechanism(tmp_path: Path, fields: dict[str, object]) -> None:
    """A mechanism that is unknown or off, and one without its credentials, is auth_failed."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(**fields))
        await rig.refused(client, "auth_failed")


@pytest_twisted.ensureDeferred
async def test_guests_off(tmp_path: Path) -> None:
    """Guests are off unless configured."""
    async with Rig(tmp_path, guests=False) as rig:
        client = await rig.connect()
        client.send(auth())
        await rig.refused(client, "auth_failed")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        "e\u0301" * 65,
        "a\nb",
        "\x1b[2J",
        "nul\0",
        "del\x7f",
        "c1\x85",
        "rtl\u202e",
        "isolate\u2066",
        "zero\u200bwidth",
        "bom\ufeff",
        "\ud800",
        "x\udfff",
        "tag\U000e0041",
        "soft\xadhyphen",
    ],
)
@pytest_twisted.ensureDeferred
async def test_bad_name(tmp_path: Path, name: str) -> None:
    """A name that is too long or has control, format or surrogate characters is auth_failed."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(name=name, game="echo"))
        await rig.refused(client, "auth_failed")


@pytest.mark.parametrize(("name", "player"), [("x" * 64, "x" * 64), ("e\u0301" * 64, "\xe9" * 64)])
@pytest_twisted.ensureDeferred
async def test_longest_name(tmp_path: Path, name: str, player: str) -> None:
    """64 characters, counted after NFC, are a name; ``guest:`` does not count."""
    async with Rig(tmp_path) as rig:
        client = await rig.connect()
        client.send(auth(name=name, game="echo"))
        assert (await client.message(WELCOME))["player"] == f"guest:{player}"
        client.close()
        await rig.over("client_lost")


@pytest.mark.parametrize("game", ["chess", "", "ECHO", "echo ", "x" * 3000, "\0", "\ud800"])
@pytest_twisted.ensureDeferred
async def test_unknown_game(tmp_path: Path, game: str) -> None:
    """A game that is not here is unknown_game, also if there is only one."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth(game=game))
        await rig.refused(client, "unknown_game")


@pytest_twisted.ensureDeferred
async def test_no_game_named(tmp_path: Path) -> None:
    """Who names none where there are two gets unknown_game; where there is one, that."""
    async with Rig(tmp_path, servers=[("other", "chess", echo)]) as rig, rig.canary():
        client = await rig.connect()
        client.send(auth())
        await rig.refused(client, "unknown_game")
    async with Rig(tmp_path) as rig:
        client = await rig.connect()
        client.send(auth())
        assert (await client.message(WELCOME))["game"] == "echo"
        client.close()
        await rig.over("client_lost")


def properties(size: int, white: bytes = b"") -> bytes:
    """The payload of an AUTH whose properties have so many bytes."""
    value = b'{"a":' + white + b'"' + b"x" * (size - 8 - len(white)) + b'"}'
    assert len(value) == size
    return (
        b'{"protocol":1,"mechanism":"guest","name":"x","game":"echo","properties":' + value + b"}"
    )


@pytest.mark.parametrize(
    "payload", [properties(513), properties(513, b" " * 400), properties(3000)]
)
@pytest_twisted.ensureDeferred
async def test_large_properties(tmp_path: Path, payload: bytes) -> None:
    """Properties of more than 512 bytes, white space counted as it was sent, are a protocol_error."""
    async with Rig(tmp_path) as rig, rig.canary():
        client = await rig.connect()
        client.send_raw(raw_auth(payload))
        await rig.refused(client, "protocol_error")


@pytest_twisted.ensureDeferred
async def test_largest_auth(tmp_path: Path) -> None:
    """AUTH of exactly 4096 bytes with 512 bytes of properties is let in, and they reach the game server."""
    payload = properties(512)
    payload = payload[:-1] + b',"z":"' + b"z" * (4095 - len(payload) - 7) + b'"}'
    assert len(payload) == 4095
    async with Rig(tmp_path) as rig:
        client = await rig.connect()
        client.send_raw(raw_auth(payload))
        await client.message(WELCOME)
        assert rig.game_servers["good"].admits[0]["properties"] == {"a": "x" * 504}
        client.close()
        await rig.over("client_lost")


@pytest.mark.parametrize("together", [True, False])
@pytest_twisted.ensureDeferred
async def test_auth_twice(tmp_path: Path, together: bool) -> None:
    """A second AUTH is a protocol_error, before WELCOME and after it."""

    async def slow(server: GameServer, stream: Stream) -> None:
        await stream.body()

    async with Rig(tmp_path, servers=[("slow", "chess", slow)]) as rig, rig.canary(lines=2):
        client = await rig.connect()
        both = frame(auth(game="chess")) * 2
        if together:
            client.send_raw(both)
        else:
            client.send_raw(both[: len(both) // 2])
            await until(lambda: [] if rig.game_servers["slow"].streams else ["not dialled"])
            client.send_raw(both[len(both) // 2 :])
        await rig.refused(client, "protocol_error")
        client = await rig.join()
        client.send(auth())
        assert await rig.closed(client, "protocol_error") == []
        await rig.over("protocol_error")

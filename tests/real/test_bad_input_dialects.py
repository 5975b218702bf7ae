"""Bad input in the dialects in which the proxy says less, and in small frames.

In ``preamble`` nothing of the proxy's own is on the wire after WELCOME, in ``plain`` never: whoever does wrong there is
closed without a word, and nothing of what was wrong reaches the other side.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred

from tests.real.rig import (
    Rig,
)
from tests.real.streams import (
    CLOSE,
    REFUSED,
    GameServer,
    Script,
    Stream,
    auth,
    frame,
    message,
    pause,
    promptly,
    until,
)
from tests.real.test_bad_input_server import unused_port

TOO_LARGE = struct.pack(">I", 2_097_152) + b"\x10"


async def keeps(server: GameServer, stream: Stream) -> None:
    """A game server that lets everybody in without a word and keeps what comes."""
    try:
        while True:
            server.got.append(await stream.body())
    finally:
        server.got.append(bytes(stream.received))


async def admits_and_keeps(server: GameServer, stream: Stream) -> None:
    """The same with a handshake."""
    await server.admit(stream)
    await keeps(server, stream)


async def echoes(server: GameServer, stream: Stream) -> None:
    """A game server that lets everybody in without a word and sends back what comes."""
    while True:
        stream.send(await stream.body())


# preamble


@pytest_twisted.ensureDeferred
async def test_preamble_looks_at_no_type(tmp_path: Path) -> None:
    """After WELCOME frames of all types pass, both ways."""
    async with Rig(tmp_path, dialect="preamble") as rig:
        client = await rig.join()
        for type_ in range(256):
            if type_ != CLOSE:  # the rig's own game server takes that for an end
                await client.echo(bytes([type_]) + b"{")
        client.close()
        await rig.over("client_lost")


@pytest_twisted.ensureDeferred
async def test_preamble_bad_frame(tmp_path: Path) -> None:
    """A bad frame after WELCOME ends both sides without CLOSE; nothing of it is passed on."""
    servers: list[tuple[str, str, Script | int]] = [("new", "chess", admits_and_keeps)]
    async with Rig(tmp_path, servers=servers, dialect="preamble") as rig:
        client = await rig.join("chess")
        client.send_raw(frame(b"\x01one") + TOO_LARGE)
        with promptly():
            assert await client.rest() == []
        assert not client.received
        await rig.over("protocol_error")
        assert rig.game_servers["new"].got == [b"\x01one", b""]


@pytest.mark.parametrize("sent", [frame(b"\x10"), b"\xff" * 9, frame(auth(protocol=[]))])
@pytest_twisted.ensureDeferred
async def test_preamble_before_welcome(tmp_path: Path, sent: bytes) -> None:
    """Before WELCOME it is all as in native."""
    async with Rig(tmp_path, dialect="preamble") as rig:
        client = await rig.connect()
        client.send_raw(sent)
        await rig.refused(client, "protocol_error")


@pytest_twisted.ensureDeferred
async def test_preamble_lost(tmp_path: Path) -> None:
    """When one side goes the other gets the end of the stream, and no CLOSE."""

    async def goes(server: GameServer, stream: Stream) -> None:
        await server.admit(stream)
        stream.send(await stream.body())
        stream.close()

    async with Rig(tmp_path, servers=[("new", "chess", goes)], dialect="preamble") as rig:
        client = await rig.join("chess")
        await client.echo(b"\x06")
        assert await client.rest() == []
        await rig.over("server_lost")


# plain


def plain(folder: Path, script: Script | int, admission: str = "none", timeout: float = 3.0) -> Rig:
    """A proxy whose one game server follows this script."""
    return Rig(
        folder,
        servers=[("new", "chess", script)],
        dialect="plain",
        admission=admission,
        timeout=timeout,
        good=False,
    )


@pytest.mark.parametrize("sent", [TOO_LARGE, b"\xff" * 9])
@pytest_twisted.ensureDeferred
async def test_plain_bad_first_frame(tmp_path: Path, sent: bytes) -> None:
    """A bad first frame is closed without a word and without a slot."""
    async with plain(tmp_path, keeps) as rig:
        client = await rig.connect()
        client.send_raw(sent)
        with promptly():
            assert await client.rest() == []
            await rig.over("protocol_error")
        assert not client.received
        assert rig.game_servers["new"].streams == []


@pytest.mark.parametrize("sent", [b"", frame(b"\x10game")[:-1]])
@pytest_twisted.ensureDeferred
async def test_plain_never_completes(tmp_path: Path, sent: bytes) -> None:
    """A first frame that never completes is closed without a word after auth.timeout."""
    async with plain(tmp_path, keeps, timeout=1.0) as rig:
        client = await rig.connect()
        client.send_raw(sent)
        with promptly(0.9):
            assert await client.rest() == []
            await rig.over("auth_timeout")
        assert not client.received


@pytest_twisted.ensureDeferred
async def test_plain_bad_frame(tmp_path: Path) -> None:
    """A bad frame later ends both sides without a word; nothing of it is passed on."""
    async with plain(tmp_path, keeps) as rig:
        client = await rig.connect()
        client.send(b"\x01one")
        await until(lambda: [] if rig.game_servers["new"].got else ["not there yet"])
        client.send_raw(frame(b"") + TOO_LARGE)
        with promptly():
            assert await client.rest() == []
            await rig.over("protocol_error")
        assert rig.game_servers["new"].got == [b"\x01one", b"", b""]


@pytest.mark.parametrize("sent", [TOO_LARGE, b"HTTP/1.1 400 Bad Request\r\n\r\n"])
@pytest_twisted.ensureDeferred
async def test_plain_bad_game_server(tmp_path: Path, sent: bytes) -> None:
    """A bad frame of the game server ends both sides without a word; nothing of it is passed on."""

    async def bad(server: GameServer, stream: Stream) -> None:
        stream.send(await stream.body())
        stream.send_raw(sent)
        await stream.rest()

    async with plain(tmp_path, bad) as rig:
        client = await rig.connect()
        client.send(b"\x05hello")
        assert await client.rest() == [b"\x05hello"]
        assert not client.received
        await rig.over("protocol_error")


@pytest_twisted.ensureDeferred
async def test_plain_unreachable(tmp_path: Path) -> None:
    """When no game server can be reached the client is closed without a word."""
    async with plain(tmp_path, unused_port()) as rig:
        client = await rig.connect()
        client.send(b"\x05hello")
        assert await client.rest() == []
        assert not client.received
        await rig.over("server_unreachable")


@pytest_twisted.ensureDeferred
async def test_plain_passes_everything(tmp_path: Path) -> None:
    """Frames of all types pass, both ways, also those that in native are the proxy's."""
    async with plain(tmp_path, echoes) as rig:
        client = await rig.connect()
        for type_ in range(256):
            await client.echo(bytes([type_]) + b"{")
        await client.echo(b"")
        client.close()
        await rig.over("client_lost")


@pytest.mark.parametrize("too_many", [0, 1])
@pytest_twisted.ensureDeferred
async def test_plain_early_bytes(tmp_path: Path, too_many: int) -> None:
    """64 KiB may come before the game server has let the session in; one byte more is closed without a word."""
    go: Deferred[None] = Deferred()

    async def slow(server: GameServer, stream: Stream) -> None:
        admit = await server.take_admit(stream)
        await go
        stream.send(server.admitted(admit))
        await keeps(server, stream)

    early = frame(b"\x10" + bytes(65_531 + too_many))
    async with plain(tmp_path, slow, admission="handshake") as rig:
        client = await rig.connect()
        client.send_raw(early[:20_000])
        await pause(0.01)
        client.send_raw(early[20_000:])
        if too_many:
            with promptly():
                assert await client.rest() == []
                await rig.over("protocol_error")
            go.callback(None)
            return
        await pause(0.05)
        go.callback(None)
        await pause(0.05)
        client.close()
        await rig.over("client_lost")
        assert rig.game_servers["new"].got == [early[4:], b""]


@pytest_twisted.ensureDeferred
async def test_proxy_v2(tmp_path: Path) -> None:
    """With proxy-v2 the header comes first, whatever the client sends, and nothing else of the proxy's."""

    async def takes_header(server: GameServer, stream: Stream) -> None:
        while len(stream.received) < 16:
            await stream.change()
        size = 16 + struct.unpack(">H", stream.received[14:16])[0]
        while len(stream.received) < size:
            await stream.change()
        server.got.append(bytes(stream.received[:size]))
        del stream.received[:size]
        await keeps(server, stream)

    async with plain(tmp_path, takes_header, admission="proxy-v2") as rig:
        client = await rig.connect()
        fake = b"\r\n\r\n\0\r\nQUIT\n" + bytes(100)
        client.send(fake)
        await pause(0.05)
        client.close()
        record = await rig.over("client_lost")
        header, body, rest = rig.game_servers["new"].got
        assert header[:14] == b"\r\n\r\n\0\r\nQUIT\n\x21\x11"
        assert header[16:20] == bytes([127, 0, 0, 1])
        assert b"\x05\0\x20" + record.session.encode() in header
        assert (body, rest) == (fake, b"")


# Frames of 1020 bytes at most


@pytest_twisted.ensureDeferred
async def test_small_frames(tmp_path: Path) -> None:
    """Where frames are small AUTH must be so too, before anything else is looked at."""
    async with Rig(tmp_path, format="vim-arcade") as rig, rig.canary(lines=2):
        client = await rig.connect()
        client.send_raw(struct.pack(">HH", 0xFFFF, 1021))
        await rig.refused(client, "protocol_error")
        client = await rig.join(properties={"a": "x" * 500}, name="x" * 64)
        client.send_raw(struct.pack(">HH", 0, 1021))
        assert await rig.closed(client, "protocol_error") == []
        await rig.over("protocol_error")


@pytest.mark.parametrize("text", ["x", "\x01", "\u202e", "\U0001f600", '"\\', "\ud800"])
@pytest_twisted.ensureDeferred
async def test_small_errors(tmp_path: Path, text: str) -> None:
    """What a game server says, however it is escaped, never makes a frame that is too large."""
    room = 900 // len(json.dumps(text)[1:-1])

    async def refuses(server: GameServer, stream: Stream) -> None:
        stream.send(message(REFUSED, code="no", message=text * room))
        await stream.rest()

    async with (
        Rig(tmp_path, format="vim-arcade", servers=[("new", "chess", refuses)]) as rig,
        rig.canary(),
    ):
        client = await rig.connect()
        client.send(auth(game="chess"))
        error = await rig.refused(client, "refused")
        assert len(json.dumps(error, ensure_ascii=False, separators=(",", ":"))) < 1020


@pytest_twisted.ensureDeferred
async def test_admit_does_not_fit(tmp_path: Path) -> None:
    """A name and properties that fit AUTH but not ADMIT: the client is told, and the game server is not blamed."""
    name = "\U0001f600" * 64
    async with Rig(tmp_path, format="vim-arcade") as rig, rig.canary():
        client = await rig.connect()
        fields = {"protocol": 1, "mechanism": "guest", "name": name}
        text = json.dumps({**fields, "properties": {"a": "x" * 504}}, ensure_ascii=False)
        client.send(b"\x01" + text.encode())
        bodies = await client.rest()
        assert bodies[-1][0] == 0x05
        record = await rig.end()
        assert record.reason in ("refused", "protocol_error"), record.reason

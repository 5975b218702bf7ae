"""docs/examples, byte by byte: game servers and clients face a test in the proxy's place, which does what a proxy would
not."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from languages import EVERY_LANGUAGE, EXAMPLES, HERE, command, needs_godot, needs_node

STATUS, WELCOME, SETTINGS, CLOSE = 0x04, 0x02, 0x03, 0x06
CHALLENGE, ADMIT, ADMITTED, REFUSED = 0x07, 0x08, 0x09, 0x0A
KEY = bytes(range(32))
MAX_FRAME = 2097151
SOON = 3.0
"""Seconds in which an answer comes; less than those in which ADMIT must come, which would hide that there is none."""


def frame(body: bytes) -> bytes:
    """A frame of the format int32."""
    return struct.pack(">I", len(body)) + body


def own_frame(kind: int, value: dict[str, Any]) -> bytes:
    """A frame of the proxy's own without a MAC."""
    return frame(bytes([kind]) + json.dumps(value).encode())


def mac_of(label: str, payload: bytes) -> bytes:
    """The MAC of a handshake's JSON."""
    return hmac.digest(KEY, label.encode() + b"\0" + payload, hashlib.sha256)


def until(condition: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait for what another process does.

    :raises AssertionError: it has not done it in time.
    """
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


class Peer:
    """A connection with a program, on which the test is the proxy."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        connection.settimeout(SOON)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = connection.makefile("rb")

    def next_frame(self) -> bytes:
        """The body of the frame that comes next."""
        (length,) = struct.unpack(">I", self._received.read(4))
        return self._received.read(length)

    def next_own(self) -> tuple[int, dict[str, Any]]:
        """The type and the JSON of the frame that comes next."""
        body = self.next_frame()
        return body[0], json.loads(body[1:])

    def is_closed(self) -> bool:
        """Whether the other side ends the connection soon, without another word."""
        try:
            return self._received.read(1) == b""
        except ConnectionResetError:
            return True

    def send(self, data: bytes, *, piecewise: bool = False) -> None:
        """Send it at once, or as single bytes so slowly that few of them are read together."""
        if not piecewise:
            self.connection.sendall(data)
            return
        for byte in data:
            self.connection.sendall(bytes([byte]))
            time.sleep(0.002)

    def close(self) -> None:
        """End the connection."""
        self._received.close()
        self.connection.close()


class RunningServer:
    """An example game server, started as a proxy would, and a farm that is a table with its row."""

    def __init__(self, language: str, folder: Path) -> None:
        self.id = f"{language}'s-1"
        self._farm = folder / "farm of one.db"
        with closing(sqlite3.connect(self._farm)) as farm, farm:
            farm.execute("PRAGMA journal_mode = WAL")
            farm.execute(
                "CREATE TABLE game_servers(id TEXT PRIMARY KEY, state TEXT NOT NULL,"
                " host TEXT, port INTEGER, heartbeat_at REAL)"
            )
            farm.execute("INSERT INTO game_servers(id, state) VALUES (?, 'starting')", [self.id])
            farm.execute("INSERT INTO game_servers(id, state) VALUES ('other', 'starting')")
        key_file = folder / "server.key"
        key_file.write_text(KEY.hex() + "\n")
        self.process = subprocess.Popen(
            command(EXAMPLES, language, "game_server"),
            cwd=folder,
            env={
                **os.environ,
                "HOME": str(folder),
                "GAMEPROXY_SERVER_ID": self.id,
                "GAMEPROXY_GAME": "echo",
                "GAMEPROXY_FARM": f"sqlite:///{self._farm}",
                "GAMEPROXY_SECRET_FILE": str(key_file),
                "GAMEPROXY_HOST": "127.0.0.1",
                "GAMEPROXY_PORT": "0",
                "GAMEPROXY_CAPACITY": "2",
            },
            stdout=(folder / "output").open("wb"),
            stderr=subprocess.STDOUT,
        )
        until(lambda: self.row()["state"] == "ready")

    def row(self, server: str | None = None) -> dict[str, Any]:
        """What the farm knows of it, or of another."""
        with closing(sqlite3.connect(self._farm, timeout=10)) as farm:
            farm.row_factory = sqlite3.Row
            rows = farm.execute("SELECT * FROM game_servers WHERE id = ?", [server or self.id])
            return dict(rows.fetchone())

    def connect(self) -> Peer:
        """Connect as the proxy does."""
        return Peer(socket.create_connection(("127.0.0.1", self.row()["port"])))

    def admit(self, challenge: dict[str, Any], **changes: Any) -> bytes:
        """An ADMIT that answers a CHALLENGE, but for the changes."""
        value = {
            "session": "00" * 16,
            "player": "guest:Zoë",
            "address": "203.0.113.7",
            "game": "echo",
            "server": self.id,
            "nonce": challenge["nonce"],
            "proxy_nonce": "b0" * 16,
            "properties": {"skin": "fox"},
            **changes,
        }
        payload = json.dumps(value, ensure_ascii=False).encode()
        return frame(bytes([ADMIT]) + mac_of("gameproxy/1 admit", payload) + payload)

    def play(self) -> Peer:
        """A connection that is let in."""
        peer = self.connect()
        peer.send(self.admit(peer.next_own()[1]))
        assert peer.next_frame()[0] == ADMITTED
        return peer

    def stop(self) -> None:
        """End it, if it runs."""
        self.process.kill()
        self.process.wait()


def test_short() -> None:
    """Each example can be read at one sitting: it is one file under 120 lines."""
    lines = {
        path.name: len(path.read_text().splitlines())
        for folder in ("node", "godot")
        for path in (EXAMPLES / folder).iterdir()
    }
    assert len(lines) == 5
    assert max(lines.values()) < 120, lines


@pytest.fixture(scope="module", params=EVERY_LANGUAGE)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningServer]:
    """One game server for all tests of a language."""
    server = RunningServer(request.param, tmp_path_factory.mktemp(request.param))
    yield server
    server.stop()


def test_ready(server: RunningServer) -> None:
    """It tells its farm where it listens and when, and leaves the rows of others alone."""
    row = server.row()
    assert row["host"] == "127.0.0.1"
    assert abs(row["heartbeat_at"] - time.time()) < 60
    assert server.row("other")["heartbeat_at"] is None


def test_handshake(server: RunningServer) -> None:
    """Its nonces are fresh, and ADMITTED carries the right MAC, the session and the proxy's nonce."""
    nonces = set()
    for _ in range(3):
        peer = server.connect()
        kind, challenge = peer.next_own()
        assert (kind, challenge["protocol"], challenge["server"]) == (CHALLENGE, 1, server.id)
        assert len(bytes.fromhex(challenge["nonce"])) == 16
        assert challenge["nonce"] == challenge["nonce"].lower()
        nonces.add(challenge["nonce"])
        peer.send(server.admit(challenge))
        body = peer.next_frame()
        assert body[0] == ADMITTED
        assert body[1:33] == mac_of("gameproxy/1 admitted", body[33:])
        assert json.loads(body[33:]) == {"session": "00" * 16, "proxy_nonce": "b0" * 16}
        peer.close()
    assert len(nonces) == 3


@pytest.mark.parametrize("piecewise", [False, True], ids=["lump", "bytes"])
def test_any_pieces(server: RunningServer, piecewise: bool) -> None:
    """ADMIT and game frames are understood in one lump, and byte by byte."""
    bodies = [b"\x10hello", b"", b"\xff", b"\x10" + bytes(40)]
    if not piecewise:
        bodies += [b"\x10%d" % number for number in range(500)] + [b"\x20" * MAX_FRAME]
    peer = server.connect()
    challenge = peer.next_own()[1]
    peer.send(
        server.admit(challenge) + b"".join(frame(body) for body in bodies), piecewise=piecewise
    )
    assert peer.next_frame()[0] == ADMITTED
    assert [peer.next_frame() for _ in bodies] == bodies
    peer.send(own_frame(CLOSE, {"code": "left", "message": ""}))
    assert peer.is_closed()
    peer.close()


def wrong_mac(server: RunningServer, challenge: dict[str, Any]) -> bytes:
    """ADMIT whose MAC differs in its last bit alone."""
    admit = bytearray(server.admit(challenge))
    admit[4 + 1 + 31] ^= 1
    return bytes(admit)


def other_label(server: RunningServer, challenge: dict[str, Any]) -> bytes:
    """ADMIT with a MAC that is good for ADMITTED."""
    payload = server.admit(challenge)[4 + 33 :]
    return frame(bytes([ADMIT]) + mac_of("gameproxy/1 admitted", payload) + payload)


REFUSALS: dict[str, Callable[[RunningServer, dict[str, Any]], bytes]] = {
    "wrong MAC": wrong_mac,
    "MAC of another label": other_label,
    "wrong nonce": lambda server, challenge: server.admit(challenge, nonce="00" * 16),
    "another server": lambda server, challenge: server.admit(challenge, server="other"),
    "no MAC": lambda server, challenge: frame(bytes([ADMIT]) + b"{}"),
    "nothing at all": lambda server, challenge: frame(b""),
    "a game frame": lambda server, challenge: frame(b"\x10" + server.admit(challenge)[5:]),
    "over 4096 bytes": lambda server, challenge: struct.pack(">I", 4097),
    "a negative length": lambda server, challenge: struct.pack(">i", -1),
}


@pytest.mark.parametrize("make", REFUSALS.values(), ids=REFUSALS.keys())
def test_refused(
    server: RunningServer, make: Callable[[RunningServer, dict[str, Any]], bytes]
) -> None:
    """A connection that does not prove itself ends at once, and not by the deadline for ADMIT."""
    peer = server.connect()
    challenge = peer.next_own()[1]
    peer.send(make(server, challenge))
    assert peer.is_closed()
    peer.close()
    server.play().close()  # which harms nobody else


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", MAX_FRAME + 1),
        struct.pack(">i", -1),
        own_frame(WELCOME, {}),
        frame(bytes([ADMIT])),
    ],
    ids=["oversize", "negative", "WELCOME", "second ADMIT"],
)
def test_bad_frame_while_playing(server: RunningServer, data: bytes) -> None:
    """What may not come ends the session, and nothing behind it counts."""
    peer = server.play()
    peer.send(data + frame(b"\x10not heard"))
    assert peer.is_closed()
    peer.close()


def test_who_does_not_read_is_not_read_from(server: RunningServer) -> None:
    """A player who sends and takes no echoes is stopped before much has piled up, and gets them all in the end."""
    peer = server.play()
    size, count = 1_000_000, 64
    peer.connection.setblocking(False)
    data = memoryview(frame(b"\x10" * size) * count)
    sent = 0
    stalled_since = time.monotonic()
    while time.monotonic() < stalled_since + 1.0 and sent < len(data):
        try:
            sent += peer.connection.send(data[sent : sent + 65536])
            stalled_since = time.monotonic()
        except BlockingIOError:
            time.sleep(0.01)
    assert sent < len(data) / 2
    peer.connection.settimeout(SOON)
    for _ in range(sent // (4 + size)):
        assert peer.next_frame() == b"\x10" * size
    peer.close()


@needs_node
def test_full(tmp_path: Path) -> None:
    """The game server in Node lets in as many as its capacity, and says ``full`` to the next."""
    server = RunningServer("node", tmp_path)
    try:
        players = [server.play() for _ in range(2)]
        peer = server.connect()
        peer.send(server.admit(peer.next_own()[1]))
        kind, refusal = peer.next_own()
        assert (kind, refusal["code"]) == (REFUSED, "full")
        for connection in [peer, *players]:
            connection.close()
    finally:
        server.stop()


@needs_node
def test_stop(tmp_path: Path) -> None:
    """At SIGTERM the game server in Node sets itself draining, tells its players, and ends with status 0."""
    server = RunningServer("node", tmp_path)
    try:
        peer = server.play()
        server.process.send_signal(signal.SIGTERM)
        kind, close = peer.next_own()
        assert (kind, close["code"]) == (CLOSE, "draining")
        assert peer.is_closed()
        peer.close()
        assert server.process.wait(SOON) == 0
        until(lambda: server.row()["state"] == "draining")
    finally:
        server.stop()


@needs_node
@needs_godot
def test_time(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Five seconds after CHALLENGE a silent connection is closed, a player's is not, and a heartbeat has come."""
    # All languages at once: it takes five seconds.
    servers = [RunningServer(name, tmp_path_factory.mktemp(name)) for name in ("node", "godot")]
    try:
        announced = [server.row()["heartbeat_at"] for server in servers]
        players = [server.play() for server in servers]
        silent = [server.connect() for server in servers]
        start = time.monotonic()
        for peer in silent:
            peer.next_frame()
            peer.connection.settimeout(10.0)
        for peer in silent:
            assert peer.is_closed()
            assert 4.0 < time.monotonic() - start < 8.0
        for server, before, player in zip(servers, announced, players, strict=True):
            until(lambda server=server, before=before: server.row()["heartbeat_at"] > before)
            player.send(frame(b"\x10still here"))
            assert player.next_frame() == b"\x10still here"
        for peer in [*players, *silent]:
            peer.close()
    finally:
        for server in servers:
            server.stop()


class RunningClient:
    """An example client that only listens (tests/interop/*/echo_client), connected to the test."""

    def __init__(self, language: str, folder: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(15.0)
            self.process = subprocess.Popen(
                command(HERE, language, "echo_client"),
                env={
                    **os.environ,
                    "HOME": str(folder),
                    "PROXY_HOST": "127.0.0.1",
                    "PROXY_PORT": str(listener.getsockname()[1]),
                    "OPTIONS": json.dumps({"name": "Zoë"}),
                },
                cwd=folder,
                stdout=subprocess.PIPE,
            )
            self.peer = Peer(listener.accept()[0])

    def events(self) -> list[dict[str, Any]]:
        """All that it has seen, once it has ended."""
        out, _ = self.process.communicate(timeout=15)
        return [json.loads(line) for line in out.splitlines() if line.startswith(b"{")]

    def stop(self) -> None:
        """End it, if it runs."""
        self.peer.close()
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=EVERY_LANGUAGE)
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunningClient]:
    """An example client that has connected."""
    client = RunningClient(request.param, tmp_path)
    yield client
    client.stop()


WAIT = own_frame(STATUS, {"state": "queued", "position": 1, "message": "Wait."})
BEGIN = own_frame(WELCOME, {"session": "s", "player": "guest:Zoë", "server": "a", "game": "g"})
END = own_frame(CLOSE, {"code": "kicked", "message": "Go."})


@pytest.mark.parametrize("piecewise", [False, True], ids=["lump", "bytes"])
def test_client_any_pieces(client: RunningClient, piecewise: bool) -> None:
    """A whole session is understood in one lump, and byte by byte; nothing after CLOSE is."""
    kind, auth = client.peer.next_own()
    assert (kind, auth) == (0x01, {"protocol": 1, "mechanism": "guest", "name": "Zoë"})
    bodies = [b"\x10hello", b"", b"\xff", b"\x10" + bytes(40)]
    client.peer.send(
        WAIT
        + BEGIN
        + frame(bytes([SETTINGS]) + b"of the game")
        + b"".join(frame(body) for body in bodies)
        + END
        + (b"" if piecewise else frame(b"\x10not heard")),
        piecewise=piecewise,
    )
    client.peer.close()
    status, welcome, settings, *frames, ended = client.events()
    assert (status["event"], status["position"]) == ("status", 1)
    assert (welcome["event"], welcome["player"]) == ("welcome", "guest:Zoë")
    assert (settings["event"], settings["text"]) == ("settings", "of the game")
    assert [bytes.fromhex(event["hex"]) for event in frames] == bodies
    assert (ended["event"], ended["code"], ended["message"]) == ("ended", "kicked", "Go.")


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (BEGIN + struct.pack(">I", MAX_FRAME + 1), "protocol_error"),
        (struct.pack(">i", -1), "protocol_error"),
        (frame(b"\x10early"), "protocol_error"),
        (BEGIN + BEGIN, "protocol_error"),
        (frame(bytes([WELCOME]) + b"no JSON"), "protocol_error"),
        (BEGIN + frame(b"\x10hello")[:-1], "server_lost"),
        (WAIT, "server_lost"),
    ],
    ids=["oversize", "negative", "game first", "WELCOME twice", "no JSON", "cut off", "lost"],
)
def test_client_ends(client: RunningClient, data: bytes, code: str) -> None:
    """What may not come, and the end of the stream, end the session once, with a code that says which it was."""
    client.peer.next_frame()
    client.peer.send(data)
    client.peer.close()
    events = client.events()
    assert [event["event"] for event in events].count("ended") == 1
    assert (events[-1]["event"], events[-1]["code"]) == ("ended", code)

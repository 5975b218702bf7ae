"""A game server for crowds: the standard library only, so that it starts at once, and written from the protocol alone.

It echoes frames, and is a witness of its own: what happens to it goes to its output as lines of JSON. Files in its
folder tell it what to do: while ``hold`` or ``hold-ID`` is there it does not say that it is ready, with ``fail`` or
``fail-ID`` it fails to start, and with ``slow`` it takes its time to let players in and to let go of them.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import signal
import socket
import sqlite3
import struct
import sys
import threading
import time
from pathlib import Path
from typing import BinaryIO

CLOSE, CHALLENGE, ADMIT, ADMITTED = 0x06, 0x07, 0x08, 0x09
ESTABLISHED, CLOSE_WAIT = 1, 8
"""States in which a connection still exists at this end (linux/tcp_states.h)."""
HEARTBEAT = 5.0

id = os.environ["GAMEPROXY_SERVER_ID"]
key = bytes.fromhex(Path(os.environ["GAMEPROXY_SECRET_FILE"]).read_text())
players: list[socket.socket] = []
lock = threading.Lock()


def tell(event: str, **facts: object) -> None:
    line = json.dumps({"event": event, "server": id, "time": time.time(), **facts}) + "\n"
    os.write(1, line.encode())


def present() -> int:
    """How many players there are. The kernel is asked: it knows a reset before the thread that serves it."""
    states = [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] for one in players]
    return sum(state in (ESTABLISHED, CLOSE_WAIT) for state in states)


def mac(label: bytes, text: bytes) -> bytes:
    return hmac.digest(key, b"gameproxy/1 " + label + b"\0" + text, hashlib.sha256)


def read(stream: BinaryIO) -> bytes:
    header = stream.read(4)
    return stream.read(struct.unpack(">I", header)[0]) if len(header) == 4 else b""


def write(connection: socket.socket, body: bytes) -> None:
    connection.sendall(struct.pack(">I", len(body)) + body)


def serve(connection: socket.socket) -> None:
    stream = connection.makefile("rb")
    player = None
    try:
        nonce = os.urandom(16).hex()
        challenge = json.dumps({"protocol": 1, "server": id, "nonce": nonce})
        write(connection, bytes([CHALLENGE]) + challenge.encode())
        body = read(stream)
        if not body:
            return
        assert body[0] == ADMIT and hmac.compare_digest(body[1:33], mac(b"admit", body[33:]))
        admit = json.loads(body[33:])
        assert (admit["nonce"], admit["server"]) == (nonce, id)
        if Path("slow").exists():
            time.sleep(0.02)
        with lock:
            player = admit["player"]
            players.append(connection)
            tell("admitted", player=player, session=admit["session"], present=present())
        text = json.dumps({"session": admit["session"], "proxy_nonce": admit["proxy_nonce"]})
        write(connection, bytes([ADMITTED]) + mac(b"admitted", text.encode()) + text.encode())
        while (body := read(stream)) and body[0] != CLOSE:
            write(connection, body)
    except OSError:
        pass  # the connection broke
    finally:
        if player is not None:
            if Path("slow").exists():
                time.sleep(0.05)
            with lock:
                players.remove(connection)
                tell("left", player=player)
        stream.close()
        connection.close()


def accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


def update(sql: str, *values: object) -> int:
    farm = sqlite3.connect(os.environ["GAMEPROXY_FARM"].removeprefix("sqlite:///"), timeout=30)
    with farm:
        count = farm.execute(f"UPDATE game_servers SET {sql}", values).rowcount
    farm.close()
    return count


def stop(number: int, frame: object) -> None:
    tell("asked to stop", present=present())
    os._exit(0)


def said(word: str) -> bool:
    return Path(word).exists() or Path(f"{word}-{id}").exists()


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    tell("started")
    while said("hold"):
        time.sleep(0.005)
    if said("fail"):
        sys.exit(1)
    listener = socket.create_server((os.environ["GAMEPROXY_HOST"], 0), backlog=200)
    threading.Thread(target=accept, args=(listener,), daemon=True).start()
    host, port = listener.getsockname()
    ready = "state='ready', host=?, port=?, heartbeat_at=? WHERE id=? AND state='starting'"
    if not update(ready, host, port, time.time(), id):
        sys.exit(1)
    tell("ready")
    while True:
        time.sleep(HEARTBEAT)
        update("heartbeat_at=? WHERE id=?", time.time(), id)


if __name__ == "__main__":
    main()

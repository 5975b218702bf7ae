"""The game server of :mod:`tests.real.crowd_game` for crashes: it prints all the time, and is full when it is full."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import crowd_game  # the interpreter is isolated: nothing else finds its neighbour

CAPACITY = int(os.environ["GAMEPROXY_CAPACITY"])
REFUSED = b'\x0a{"code": "full", "message": "all places are taken"}'
serve_player = crowd_game.serve


def serve(connection: socket.socket) -> None:
    """Refuse who comes when all places are taken, whatever the proxy believes."""
    if crowd_game.present() < CAPACITY:
        serve_player(connection)
        return
    crowd_game.tell("refused")
    try:
        challenge = f'{{"protocol": 1, "server": "{crowd_game.id}", "nonce": "{"0" * 32}"}}'
        crowd_game.write(connection, bytes([crowd_game.CHALLENGE]) + challenge.encode())
        crowd_game.read(connection.makefile("rb"))
        crowd_game.write(connection, REFUSED)
        connection.recv(1)
    except OSError:
        pass  # the connection broke
    finally:
        connection.close()


def print_all_the_time() -> None:
    while True:
        crowd_game.tell("tick")
        time.sleep(0.01)


if __name__ == "__main__":
    crowd_game.serve = serve
    threading.Thread(target=print_all_the_time, daemon=True).start()
    crowd_game.main()

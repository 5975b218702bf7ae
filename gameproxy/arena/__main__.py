"""``python -m gameproxy.arena``: what a proxy starts as a game server."""

from __future__ import annotations

import os

from gameproxy.arena.server import Arena
from gameproxy.gameserver import run

if __name__ == "__main__":
    run(Arena(os.urandom))

"""A Minecraft 1.8 game server that knows nothing of gameproxy, made with quarry.

    python server.py [--compression BYTES] [HOST [PORT]]

HOST and PORT default to GAMEPROXY_HOST and GAMEPROXY_PORT, then to 127.0.0.1 and any free port.
It prints "listening PORT", runs until SIGTERM, and logs to standard error. Players are not looked
up anywhere (offline mode). Each gets a map, keep-alives, and everything it says in the chat back.
"""

import argparse
import logging
import os
import random

from quarry.net.protocol import ProtocolError
from quarry.net.server import ServerFactory, ServerProtocol
from quarry.types.buffer import Buffer1_7
from twisted.internet import reactor

PROTOCOL_VERSION = 47  # Minecraft 1.8
KEEP_ALIVE_TICKS = 10  # of 1/20 s; half a second, so that a short test sees a few
# Large enough for a frame length of three varint bytes, and hard to compress.
MAP_CHANNEL = "interop|map"
MAP = random.Random(47).randbytes(200_000)


class Player(ServerProtocol):
    """One player's connection."""

    def setup(self) -> None:
        """Called by quarry at the end of its __init__."""
        self.keep_alives_sent = 0
        self.keep_alives_answered = 0

    def player_joined(self) -> None:
        """Send what a client needs to be in the game, in the order of the game's own server."""
        super().player_joined()
        pack = self.buff_type.pack
        pack_string = self.buff_type.pack_string
        # Entity id, game mode, dimension, difficulty, size of the player list; level type; debug.
        self.send_packet(
            "join_game", pack("iBbBB", 0, 1, 0, 0, 20), pack_string("flat"), pack("?", False)
        )
        self.send_packet("plugin_message", pack_string(MAP_CHANNEL), MAP)
        # x, y, z, yaw, pitch; no coordinate is relative.
        self.send_packet("player_position_and_look", pack("dddffB", 0, 64, 0, 0, 0, 0))
        self.ticker.add_loop(KEEP_ALIVE_TICKS, self.send_keep_alive)

    def send_keep_alive(self) -> None:
        """Send the next keep-alive, unless the last one still waits for its answer."""
        if self.keep_alives_answered == self.keep_alives_sent:
            self.keep_alives_sent += 1
            self.send_packet("keep_alive", self.buff_type.pack_varint(self.keep_alives_sent))

    def packet_keep_alive(self, buff: Buffer1_7) -> None:
        """A client answers a keep-alive with the same number, once."""
        number = buff.unpack_varint()
        if number != self.keep_alives_answered + 1 or number != self.keep_alives_sent:
            raise ProtocolError(f"keep-alive {number} was not asked for")
        self.keep_alives_answered = number

    def packet_chat_message(self, buff: Buffer1_7) -> None:
        """Say it back, with the player's name as the game shows it."""
        line = f"<{self.display_name}> {buff.unpack_string()}"
        # The last byte is where the client shows it: 0 is the chat box.
        self.send_packet(
            "chat_message", self.buff_type.pack_chat(line), self.buff_type.pack("B", 0)
        )


class GameServer(ServerFactory):
    """The listening side."""

    protocol = Player
    online_mode = False  # online, quarry would ask Mojang who the player is
    force_protocol_version = PROTOCOL_VERSION
    max_players = 1000


def main() -> None:
    """Listen and serve until a signal."""
    parser = argparse.ArgumentParser(description="A Minecraft 1.8 game server for tests.")
    parser.add_argument("host", nargs="?", default=os.environ.get("GAMEPROXY_HOST", "127.0.0.1"))
    # argparse converts a default that is a string as if it had been given.
    parser.add_argument("port", nargs="?", default=os.environ.get("GAMEPROXY_PORT", "0"), type=int)
    parser.add_argument(
        "--compression",
        type=int,
        default=64,
        metavar="BYTES",
        help="compress packets from this size on; 0: none (default: %(default)s)",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    factory = GameServer()
    factory.compression_threshold = options.compression
    port = reactor.listenTCP(options.port, factory, interface=options.host)
    print("listening", port.getHost().port, flush=True)
    reactor.run()


if __name__ == "__main__":
    main()

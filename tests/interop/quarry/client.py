"""Minecraft 1.8 clients that know nothing of gameproxy, made with quarry; they try server.py.

    python client.py HOST PORT COUNT

COUNT clients at once log in with names of their own, receive the map, answer keep-alives, and
send numbered chat messages that must come back to them whole and in order; then they leave.
Prints "OK COUNT" and exits 0, or a line for each client that failed and exits 1. All of it may
take DEADLINE seconds. The accounts are offline ones: nobody but HOST is contacted.
"""

import sys
from typing import Any

from quarry.net.auth import OfflineProfile
from quarry.net.client import ClientFactory, SpawningClientProtocol
from quarry.net.protocol import ProtocolError
from quarry.types.buffer import Buffer1_7
from server import MAP, MAP_CHANNEL, PROTOCOL_VERSION
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import react
from twisted.python.failure import Failure

DEADLINE = 60.0  # seconds
MESSAGES = 100
KEEP_ALIVES = 2  # the second is sent only when the first has been answered
LONGEST_CHAT = 100  # characters, the limit of Minecraft 1.8


def chat_message(number: int) -> str:
    """The text of one numbered message; they differ in length too."""
    return f"{number} ".ljust(3 + number % (LONGEST_CHAT - 2), "x")


class Player(SpawningClientProtocol):
    """One client's connection: quarry logs in and answers keep-alives, this one checks."""

    def setup(self) -> None:
        """Called by quarry at the end of its __init__."""
        self.maps = 0
        self.keep_alives = 0
        self.echoes = 0
        self.problem: ProtocolError | None = None
        self.factory.player = self

    def spawn(self) -> None:
        """The server has put us into the game: say all we have to say."""
        super().spawn()
        for number in range(MESSAGES):
            self.send_packet("chat_message", self.buff_type.pack_string(chat_message(number)))

    def packet_plugin_message(self, buff: Buffer1_7) -> None:
        """The map must come whole."""
        if buff.unpack_string() != MAP_CHANNEL or buff.read() != MAP:
            raise ProtocolError("the map is not the server's")
        self.maps += 1
        self.leave_when_done()

    def packet_keep_alive(self, buff: Buffer1_7) -> None:
        """Have quarry answer it, and count."""
        super().packet_keep_alive(buff)
        self.keep_alives += 1
        self.leave_when_done()

    def packet_chat_message(self, buff: Buffer1_7) -> None:
        """It must be the next of our own messages, under our own name."""
        line = buff.unpack_chat().to_string()
        buff.unpack("B")  # where to show it
        expected = f"<{self.factory.profile.display_name}> {chat_message(self.echoes)}"
        if line != expected:
            raise ProtocolError(f"expected {expected!r} in the chat, got {line!r}")
        self.echoes += 1
        self.leave_when_done()

    def packet_login_disconnect(self, buff: Buffer1_7) -> None:
        """Nothing here is a reason to be thrown out."""
        raise ProtocolError(f"kicked: {buff.unpack_chat().to_string()!r}")

    packet_disconnect = packet_login_disconnect

    def protocol_error(self, err: ProtocolError) -> None:
        """A packet is not what it must be, says one of the methods above or quarry."""
        self.problem = err
        self.close()

    def done(self) -> bool:
        """Whether everything has come that must."""
        return self.maps == 1 and self.keep_alives >= KEEP_ALIVES and self.echoes == MESSAGES

    def leave_when_done(self) -> None:
        """A player leaves by ending the connection; the game has no packet for it."""
        if self.done():
            self.close()

    def connection_lost(self, reason: Failure) -> None:
        """Report how it went."""
        super().connection_lost(reason)
        self.factory.connection_ended(self.problem or (None if self.done() else reason.value))


class Visit(ClientFactory):
    """One client's whole visit; `ended` fires when it is over, with an error if it failed."""

    protocol = Player
    force_protocol_version = PROTOCOL_VERSION

    def __init__(self, name: str) -> None:
        super().__init__(OfflineProfile(name))
        self.player: Player | None = None
        self.ended: Deferred[None] = Deferred()

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        """There was no connection at all."""
        self.ended.errback(reason)

    def connection_ended(self, problem: BaseException | None) -> None:
        """The connection is over; `problem` is None when all went well."""
        if problem is None:
            self.ended.callback(None)
        else:
            self.ended.errback(problem)

    def describe(self, failure: Failure) -> str:
        """What failed and how far this client had come, in one line."""
        player = self.player
        progress = (
            "not connected"
            if player is None
            else f"in {player.protocol_mode}, {player.maps} of 1 maps, "
            f"{player.keep_alives} of {KEEP_ALIVES} keep-alives, "
            f"{player.echoes} of {MESSAGES} messages"
        )
        error = failure.value
        return f"{self.profile.display_name}: {type(error).__name__}: {error} ({progress})"


async def main(reactor: Any, host: str, port: str, count: str) -> None:
    """Let them all play at once, and wait for the last."""
    visits = [Visit(f"player{number}") for number in range(int(count))]
    for visit in visits:
        visit.ended.addTimeout(DEADLINE, reactor)
        visit.connect(host, int(port))
    results = await DeferredList([visit.ended for visit in visits], consumeErrors=True)
    failures = [
        visit.describe(result)
        for visit, (success, result) in zip(visits, results, strict=True)
        if not success
    ]
    if failures:
        print(*failures, sep="\n")
        raise SystemExit(1)
    print("OK", count)


if __name__ == "__main__":
    react(main, sys.argv[1:])

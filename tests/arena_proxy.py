"""A proxy with the arena behind it, in memory: for tests of bots and of the terminal client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from gameproxy.arena.field import STEPS_PER_SECOND
from gameproxy.arena.server import Arena
from gameproxy.framing import FORMATS, Framer
from gameproxy.loops import Loop, Receiver
from gameproxy.messages import (
    FrameType,
    Notice,
    Welcome,
    decode_auth,
    encode_error,
    encode_settings,
    encode_status,
)
from gameproxy.testing import seeded_entropy

INT32 = FORMATS["int32"]


class FakePlayer:
    """What a game sees of a player.

    :ivar sent: the frames that the game has sent.
    :ivar closed: code and message with which the game has closed the session.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.data: Any = None
        self.sent: list[bytes] = []
        self.closed: tuple[str, str] | None = None

    def send(self, body: bytes) -> None:
        self.sent.append(body)

    def close(self, message: str, code: str = "left") -> None:
        self.closed = code, message


class FakeServer:
    """What a game sees of its game server.

    :ivar players: who is in.
    :ivar turns: what is to be called again and again, and how often: seconds and call.
    """

    def __init__(self) -> None:
        self.players: list[FakePlayer] = []
        self.turns: list[tuple[float, Callable[[], object]]] = []

    def every(self, seconds: float, call: Callable[[], object]) -> None:
        self.turns.append((seconds, call))

    def broadcast(self, body: bytes, but: FakePlayer | None = None) -> None:
        for player in self.players:
            if player is not but:
                player.send(body)


class ArenaProxy:
    """Lets everybody in, to one arena that steps on while the loop turns.

    :param loop: whose time it is.
    :ivar visits: the connections, in order.
    :ivar before_welcome: bodies that are sent after AUTH; when the last is an ERROR, nothing follows.
    :ivar welcomes: when false, WELCOME does not come.
    :ivar alters: called with each frame of the game before it is sent; gives those that are sent in its place.
    :ivar error: when set, what connecting fails with.
    """

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.visits: list[Visit] = []
        self.before_welcome: list[bytes] = []
        self.welcomes = True
        self.alters: Callable[[bytes], Sequence[bytes]] = lambda body: [body]
        self.error: Exception | None = None
        self.server = FakeServer()
        self.arena = Arena(seeded_entropy("arena"))
        self.arena.started(self.server)  # type: ignore[arg-type]
        self._step()

    def connect(self, build: Callable[[], Receiver]) -> None:
        """A client connects."""
        receiver = build()
        visit = Visit(self, receiver)
        self.visits.append(visit)
        receiver.opened(visit)

    @property
    def here(self) -> list[Visit]:
        """The visits of those who are in."""
        return [visit for visit in self.visits if visit in self.server.players]

    def _step(self) -> None:
        self.arena.step()
        self.timer = self.loop.call_later(1 / STEPS_PER_SECOND, self._step)


class Visit(FakePlayer):
    """One connection: the client's stream, and the game's player.

    :ivar inputs: the frames that came from the client.
    :ivar left: whether the client has said CLOSE.
    """

    reads_on = False
    on_taken: Callable[[], object] | None = None
    behind = 0

    def __init__(self, proxy: ArenaProxy, receiver: Receiver) -> None:
        super().__init__("")
        self.inputs: list[bytes] = []
        self.left = False
        self._proxy = proxy
        self._receiver = receiver
        self._framer = Framer(INT32)
        self._out = b""
        self._closing = self._closed = False

    # What the client does

    def write(self, data: bytes) -> None:
        self._framer.feed(data)
        for body in self._framer.frames():
            self._take(body)

    def pause(self) -> None:
        """Nobody pauses here."""

    def resume(self) -> None:
        """Nobody pauses here."""

    def end(self) -> None:
        self.cut()

    def abort(self) -> None:
        self.cut()

    # What the proxy and the game do

    def send(self, body: bytes) -> None:
        for one in self._proxy.alters(body):
            self.say(one)

    def close(self, message: str, code: str = "left") -> None:
        super().close(message, code)
        self.say(Notice(code, message).encode(FrameType.CLOSE))
        self.cut()

    def say(self, body: bytes) -> None:
        """Send a frame, as it is."""
        if not self._out:
            self._proxy.loop.call_later(0, self._flush)
        self._out += INT32.encode(body)

    def cut(self) -> None:
        """End the connection, when all is sent."""
        if not self._closing:
            self._closing = True
            self._proxy.loop.call_later(0, self._close)
            self._leave_game()

    def _take(self, body: bytes) -> None:
        proxy = self._proxy
        if body[0] == FrameType.AUTH:
            self.name = f"guest:{decode_auth(body[1:]).name}"
            for one in proxy.before_welcome:
                self.say(one)
            if proxy.before_welcome and proxy.before_welcome[-1][0] == FrameType.ERROR:
                self.cut()
                return
            if not proxy.welcomes:
                return
            self.say(Welcome("5e55", self.name, "arena-1", "arena").encode())
            proxy.server.players.append(self)
            proxy.arena.admitting(self)  # type: ignore[arg-type]
            for one in proxy.alters(encode_settings(proxy.arena.settings(self))):  # type: ignore[arg-type]
                self.say(one)
            proxy.arena.joined(self)  # type: ignore[arg-type]
        elif body[0] == FrameType.CLOSE:
            self.left = True
            self.cut()
        else:
            self.inputs.append(body)
            proxy.arena.received(self, body)  # type: ignore[arg-type]

    def _leave_game(self) -> None:
        players = self._proxy.server.players
        if self in players:
            players.remove(self)
            self._proxy.arena.left(self)  # type: ignore[arg-type]

    def _flush(self) -> None:
        out, self._out = self._out, b""
        if not self._closed:
            self._receiver.received(out)

    def _close(self) -> None:
        self._flush()
        self._closed = True
        self._receiver.closed()


def queued(position: int) -> bytes:
    """A STATUS, for :attr:`ArenaProxy.before_welcome`."""
    return encode_status("queued", position, "All places are taken.")


def refusal(code: str, retry_after: float | None = None) -> bytes:
    """An ERROR, for :attr:`ArenaProxy.before_welcome`."""
    return encode_error(code, "Not now.", retry_after)


class ConnectsInMemory:
    """A loop whose connections lead to an :class:`ArenaProxy`; to be mixed into a loop.

    :ivar proxy: that proxy.
    :ivar hold: when true, connecting takes for ever.
    """

    proxy: ArenaProxy
    hold = False
    txaio: Any

    def connect(
        self, host: str, port: int, timeout: float, build: Callable[[], Receiver]
    ) -> Awaitable[None]:
        future: Awaitable[None] = self.txaio.create_future()
        if self.hold:
            return future
        if self.proxy.error is not None:
            self.txaio.reject(future, self.proxy.error)
        else:
            self.proxy.connect(build)
            self.txaio.resolve(future, None)
        return future

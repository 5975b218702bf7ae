"""A connection from a proxy to a game server: one session."""

from __future__ import annotations

from asyncio import CancelledError
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from gameproxy.framing import FrameError, Framer
from gameproxy.gameserver.game import Player, Refused
from gameproxy.handshake import ADMIT_TIMEOUT, NONCE_BYTES, GameServerHandshake, HandshakeError
from gameproxy.loops import Stream, Timer
from gameproxy.messages import (
    OWN_FRAME_MAX,
    Admit,
    FrameType,
    Notice,
    encode_settings,
)
from gameproxy.reasons import ADVICE, CloseReason

if TYPE_CHECKING:
    from gameproxy.gameserver.server import GameServer

_CLOSE = bytes([FrameType.CLOSE])


class Connection:
    """A connection from a proxy: the handshake, then the frames of one player, each in its turn."""

    _stream: Stream

    def __init__(self, server: GameServer) -> None:
        self._server = server
        self._framer = Framer(server.format, OWN_FRAME_MAX)
        self._handshake = GameServerHandshake(
            server=server.place.server, key=server.place.key, nonce=server.entropy(NONCE_BYTES)
        )
        self._receive: Callable[[bytes], None] = self._expect_admit
        self._deadline: Timer | None = None
        self._session: str | None = None  # once its place is taken
        self._player: Player | None = None
        self._is_in = False
        self._joined = False  # and has not left
        self._working = False
        self._busy = False  # something of the game's is under way
        self._task: Any = None  # which asyncio itself does not keep
        self._ended = False  # nothing is sent, and nothing is listened to
        self._gone = False

    # What the stream tells

    def opened(self, stream: Stream) -> None:
        self._stream = stream
        self._deadline = self._server.loop.call_later(ADMIT_TIMEOUT, self._too_late)
        self._server.connected(self)

    def received(self, data: bytes) -> None:
        self._framer.feed(data)
        self._work()

    def closed(self) -> None:
        self._ended = self._gone = True
        self._stop_deadline()
        self._server.disconnected(self._session)
        self._work()

    # What the game server does

    def challenge(self) -> None:
        """Begin the handshake."""
        self._write_frame(self._handshake.challenge())

    def write(self, frame: bytes) -> None:
        """Send a whole frame, header and all. Who does not take what it is sent is let go of."""
        if self._ended:
            return
        if not self._is_in:
            raise RuntimeError("the player is not in yet")
        self._stream.write(frame)
        if self._stream.behind > self._server.send_buffer_max:
            self._server.journal.warn(
                "{player!r} does not take what is sent: the connection is aborted.",
                player=self._player,
            )
            self.abort()

    def send(self, body: bytes) -> None:
        """Send a frame of the game's."""
        self.write(self._server.encode(body))

    def send_own(self, body: bytes) -> None:
        """Send a frame of the proxy's, where there are such."""
        if not self._server.own_frames:
            return
        if len(body) > OWN_FRAME_MAX and body[0] != FrameType.SETTINGS:
            raise ValueError(f"this takes {OWN_FRAME_MAX} bytes at most")
        self.write(self._server.format.encode(body))

    def end(self) -> None:
        """End the connection when all is sent; send and hear no more."""
        self._ended = True
        self._stop_deadline()
        self._stream.end()

    def abort(self) -> None:
        """End the connection now, unless it is being ended."""
        if not self._ended:
            self._ended = True
            self._stop_deadline()
            self._stream.abort()

    # In turn

    def _work(self) -> None:
        """Go on with what has come, until something of the game's takes its time or nothing is left to do."""
        if self._working:
            return
        self._working = True
        frames = self._framer.frames()
        try:
            while not self._busy and not self._ended:
                body = next(frames, None)
                if body is None:
                    break
                self._receive(body)
        except (FrameError, HandshakeError) as error:
            self._server.journal.warn("A proxy's connection is closed: {error}", error=error)
            if self._is_in:
                self.end()
            else:  # nothing was said that must not be lost
                self.abort()
        finally:
            self._working = False
        if self._gone and not self._busy and self._joined:
            self._joined = False
            self._call(self._server.game.left, self._player)
        if self._gone and not self._busy:
            self._server.over(self)

    def _call(
        self,
        call: Callable[..., object],
        *arguments: object,
        then: Callable[[Any], None] | None = None,
    ) -> None:
        """Call something of the game's, and go on with what it gives: at once, or as soon as it gives it."""
        self._busy = True
        try:
            result = call(*arguments)
            if result is not None and isinstance(result, Awaitable):
                self._task = self._server.loop.txaio.as_future(self._wait, result, then)
                if self._busy:
                    self._stream.pause()
                return
            self._busy = False
            if then is not None:
                then(result)
        except Exception as error:
            self._busy = False
            self._failed(error)

    async def _wait(self, result: Awaitable[Any], then: Callable[[Any], None] | None) -> None:
        try:
            value = await result
            self._busy = False
            if then is not None:
                then(value)
        except (Exception, CancelledError) as error:
            self._busy = False
            self._failed(error)
        if not self._busy:
            self._stream.resume()
        self._work()

    def _failed(self, error: BaseException) -> None:
        """Something of the game's has raised."""
        if isinstance(error, Refused) and not self._is_in:
            self._refuse(error.code, error.message)
            return
        self._server.journal.failure(f"A game has failed with {self._player!r}.")
        if self._is_in:
            notice = Notice(CloseReason.INTERNAL, ADVICE[CloseReason.INTERNAL])
            self.send_own(notice.encode(FrameType.CLOSE))
            self.end()
        else:
            self._refuse(CloseReason.INTERNAL, ADVICE[CloseReason.INTERNAL])

    # The handshake

    def _expect_admit(self, body: bytes) -> None:
        admit = self._handshake.receive(body)
        self._stop_deadline()
        if self._server.has_session(admit.session):
            raise HandshakeError("the session is in already")
        no_room = self._server.why_no_room()
        if no_room is not None:
            self._refuse(no_room, "There is no room.")
            return
        self._session = admit.session
        self._server.expect(admit.session, self)
        player = self._player = Player(admit, self)
        game = self._server.game

        def ask_for_settings(_: object) -> None:
            self._call(game.settings, player, then=lambda settings: self._let_in(admit, settings))

        self._call(game.admitting, player, then=ask_for_settings)

    def _let_in(self, admit: Admit, settings: bytes | None) -> None:
        server, player = self._server, self._player
        assert player is not None
        if self._ended:
            return
        if server.is_draining:  # since it was asked whether there is room
            self._refuse("draining", "There is no room.")
            return
        frames = server.format.encode(self._handshake.accept(admit))
        if settings is not None and server.own_frames:
            frames += server.format.encode(encode_settings(settings))
        self._stream.write(frames)
        self._is_in = self._joined = True
        self._framer.max_body = server.format.max_frame
        self._receive = self._play
        server.players[player.session] = player
        self._call(server.game.joined, player)

    def _play(self, body: bytes) -> None:
        if self._server.own_frames and body[:1] == _CLOSE:
            self.end()
        else:
            self._call(self._server.game.received, self._player, body)

    def _refuse(self, code: str, message: str) -> None:
        self._write_frame(Notice(code, message).encode(FrameType.REFUSED))
        self.end()

    def _too_late(self) -> None:
        self._deadline = None
        self.abort()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _write_frame(self, body: bytes) -> None:
        self._stream.write(self._server.format.encode(body))

"""A person at a proxy: what is typed becomes frames, and what comes is printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import CancelledError, Deferred, succeed

from gameproxy.cli.console import Console
from gameproxy.client import (
    Client,
    End,
    Ending,
    NotWelcomed,
    ProtocolError,
    Refused,
    Session,
    SessionEnded,
    keep_playing,
)
from gameproxy.loops import Timer
from gameproxy.messages import Status

if TYPE_CHECKING:
    from gameproxy.interfaces import Entropy

BYTES_SHOWN: Final = 64
"""Bytes of a frame that are printed."""
LINGER: Final = 1.0
"""Seconds to listen on when there is nothing more to send, so that what was piped in gets its answer."""
_HEADINGS: Final = {End.LEFT: "you", End.CLOSED: "CLOSE", End.LOST: "lost:"}
_CHECK_ADDRESS: Final = (
    "Check host and port, that a proxy listens there (proxy.listen), and firewalls in between."
)
_CHECK_PROTOCOL: Final = (
    "Check --dialect and --format against [dialect] and [framing] of the proxy's configuration, and that it is a proxy"
    " that listens there."
)


class Contact:
    """A person, a console, and a client.

    :param address: the proxy's, for the person.
    :param body_of: makes the frame of a line; raises ValueError if it cannot.
    """

    def __init__(
        self, client: Client, console: Console, address: str, body_of: Callable[[bytes], bytes]
    ) -> None:
        self._client = client
        self._console = console
        self._address = address
        self._body_of = body_of
        self._session: Session | None = None
        self._running: Deferred[int] | None = None
        self._ending: Ending | None = None
        self._leaving: Timer | None = None

    def start(self, entropy: Entropy | None = None) -> Deferred[int]:
        """Connect, and play to the end.

        :param entropy: play on when the connection is lost, with random bytes for the pauses; ``None``: do not.
        :return: fires with the exit status, when all is printed.
        """
        self._running = Deferred.fromCoroutine(self._run(entropy))
        return self._running

    def end(self) -> Deferred[None]:
        """Leave because the program ends.

        :return: fires when that is done.
        """
        if self._running is None or self._running.called:
            return succeed(None)
        if self._session is not None and self._session.ending is None:
            self._session.leave()
        elif self._session is None:
            self._running.cancel()
        return self._console.closed

    async def _run(self, entropy: Entropy | None) -> int:
        status = await self._to_the_end(entropy)
        self._console.close()
        if not self._console.closed.called:
            await self._console.closed
        return status

    async def _to_the_end(self, entropy: Entropy | None) -> int:
        console = self._console
        console.progress(f"connecting to {self._address}", on_terminal_only=True)
        try:
            if entropy is None:
                await self._play(await self._client.connect(self._status))
            else:
                await keep_playing(
                    self._client,
                    self._play,
                    entropy=entropy,
                    on_status=self._status,
                    on_pause=self._pause,
                )
        except SessionEnded as end:
            return self._tell(end.ending)
        except Refused as refusal:
            later = refusal.retry_after
            console.say(f"ERROR {refusal}" + (f" (in {later:g} s)" if later else ""))
        except (ProtocolError, NotWelcomed) as error:
            console.say(f"no session at {self._address}: {error} {_CHECK_PROTOCOL}")
        except (OSError, ValueError) as error:  # ValueError: no such name can exist
            console.say(f"cannot connect to {self._address}: {error} {_CHECK_ADDRESS}")
        except CancelledError:
            console.say("given up")
        else:
            assert self._ending is not None
            return self._tell(self._ending)
        return 1

    async def _play(self, session: Session) -> None:
        console = self._console
        self._session = session
        welcome = session.welcome
        if welcome is None:
            console.say(f"connected to {self._address}")
        else:
            console.say(
                f"WELCOME {welcome.player} to {welcome.game} on {welcome.server},"
                f" session {welcome.session}"
            )
        session.on_settings = self._settings
        console.on_line = self._typed
        console.on_no_more = self._no_more
        if console.has_ended:  # in an earlier session
            self._no_more("")
        console.want_lines(True)
        try:
            async for body in session:
                console.say(f"frame {described(body)}")
                await console.printed()
        finally:
            console.want_lines(False)
            if self._leaving is not None:
                self._leaving.cancel()
                self._leaving = None
            self._session = None
            self._ending = session.ending

    def _typed(self, line: bytes) -> None:
        session = self._session
        if session is None or session.ending is not None:
            return
        try:
            session.send(self._body_of(line))
        except ValueError as error:
            self._console.say(f"not sent: {error}")
        if session.behind:
            self._console.want_lines(False)
            Deferred.fromCoroutine(self._read_on(session))

    async def _read_on(self, session: Session) -> None:
        await session.drained()
        if session.ending is None:
            self._console.want_lines(True)

    def _no_more(self, why: str) -> None:
        if why:
            self._console.say(why)
            self._leave()
        elif self._leaving is None:
            self._leaving = self._client.loop.call_later(LINGER, self._leave)

    def _leave(self) -> None:
        self._leaving = None
        if self._session is not None:
            self._session.leave()

    def _status(self, status: Status) -> None:
        position = "" if status.position is None else f", position {status.position}"
        self._console.progress(f"STATUS {status.state}{position}: {status.message}")

    def _settings(self, settings: bytes) -> None:
        if not self._console.is_full:  # or they would pile up here
            self._console.say(f"SETTINGS {described(settings)}")

    def _pause(self, seconds: float, reason: Exception) -> None:
        self._console.progress(f"{reason}; connecting again in {seconds:.1f} s")

    def _tell(self, ending: Ending) -> int:
        self._console.say(f"{_HEADINGS[ending.end]} {ending.code}: {ending.message}".rstrip(": "))
        return 0 if ending.end in (End.LEFT, End.CLOSED) else 1


def described(body: bytes) -> str:
    """A body for people: its size, its first bytes in hexadecimal, and as text."""
    start = body[:BYTES_SHOWN]
    more = "..." if len(body) > BYTES_SHOWN else ""
    text = start.decode("utf-8", "replace")
    return f"of {len(body)} bytes: {start.hex(' ')}{more}  {text}{more}"

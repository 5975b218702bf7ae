"""What a client sends before WELCOME: in whatever pieces it comes, its session hears the same, and no more is kept of
it than may be."""

from __future__ import annotations

from dataclasses import dataclass, field

from twisted.internet.task import Clock

from gameproxy.client_side import ALL_EARLY_MAX, EARLY_MAX, ClientFactory, ClientSide, EarlyBytes
from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, Framer
from gameproxy.interfaces import Peer
from gameproxy.messages import Auth, FrameType, decode_error
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.wire import Wire
from tests.fake_transport import FakeTransport
from tests.fuzz.choices import Choices, pieces

AUTH = Auth("guest", name="ada").encode()
FORMATS_USED = tuple(FORMATS.values())
ROOMS = (ALL_EARLY_MAX, 50)
"""For the early bytes of all clients."""
REPEATS = 40
"""How often a stream may say its end again: what reaches 64 KiB is found without so long an input."""


@dataclass
class Heard:
    """What a session hears of its client."""

    client: ClientSide
    id: str = "0123456789abcdef"
    auths: list[Auth] = field(default_factory=list)
    refusals: list[CloseReason] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.inputs = self

    def authenticate(self, auth: Auth) -> None:
        assert not self.refusals
        self.auths.append(auth)

    def end(self, refusal: Refusal) -> None:
        self.refusals.append(refusal.reason)
        self.client.refuse(refusal)

    def client_ended(self) -> None:
        self.client.leave()


def target(data: bytes) -> None:
    """A dialect, a format, whether AUTH is right at first, pieces, and then what comes."""
    choices = Choices(data)
    dialect = choices.one_of(("native", "preamble", "plain"))
    format = choices.one_of(FORMATS_USED)
    start = choices.one_of((b"", format.encode(AUTH), format.encode(AUTH[:1])))
    room = choices.one_of(ROOMS)
    repeats = choices.byte() % REPEATS
    sizes = choices.sizes()
    end = choices.rest()
    stream = start + end + end * repeats
    words = Dialect(dialect, format)
    at_once = _hear(words, stream, [len(stream) or 1], room)
    assert _hear(words, stream, sizes, room) == at_once or at_once[1]
    if at_once[1] and len(stream) <= EARLY_MAX and room == ALL_EARLY_MAX:
        # Which of two faults is found first may depend on the pieces, where there are two; not whether.
        assert _hear(words, stream, sizes, room)[1]


def _hear(
    words: Dialect, stream: bytes, sizes: list[int], room: int
) -> tuple[list[Auth], list[CloseReason], bytes]:
    """What a session hears of a client that sends this, and what it would have to pass on of it."""
    clock, transport, all_early = Clock(), FakeTransport(), EarlyBytes(room)
    heard: list[Heard] = []

    def accept(wire: Wire, peer: Peer) -> None:
        client = ClientSide(wire, words.format, words, all_early)
        heard.append(Heard(client))
        client.session = heard[0]  # type: ignore[assignment]  # it hears as one

    transport.connect(ClientFactory(clock, lambda: True, accept).buildProtocol(None))
    (session,) = heard
    for piece in pieces(stream, sizes):
        transport.deliver(piece)
        assert all_early.kept <= min(room, EARLY_MAX)
        assert len(session.auths) <= 1 and len(session.refusals) <= 1
        most = 0 if session.refusals else 4096 + words.format.header_size + len(piece)
        assert session.client._framer.pending <= most
    early = b""
    if session.refusals:
        assert all_early.kept == 0
        _is_told(words, transport.written, session.refusals[0])
    else:
        assert transport.written == b""
        if session.auths:
            side = session.client.hand_over()
            early = side.early
            assert len(early) <= len(stream) <= EARLY_MAX + 4096 + 10
            assert stream.find(early) >= 0
        else:
            transport.reset()
    assert all_early.kept == 0
    return session.auths, session.refusals, early


def _is_told(words: Dialect, written: bytes, reason: CloseReason) -> None:
    """A client that is refused gets one ERROR, in dialects that have it."""
    if not words.begins_with_auth:
        assert written == b""
        return
    framer = Framer(words.format)
    framer.feed(written)
    (body,) = framer.frames()
    assert body[0] == FrameType.ERROR and framer.pending == 0
    assert decode_error(body[1:]).code == reason

"""What a hostile game server says to the proxy that dials it, with its key, which it knows: it gets the session only by
an ADMITTED that is right, and an attempt has no end that it should not have."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field

from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from gameproxy.dialect import Dialect
from gameproxy.framing import FORMATS, FrameFormat, FrameScanner
from gameproxy.handshake import admit_mac, admitted_mac
from gameproxy.interfaces import Attempt, AttemptFailed, Introduction, Peer, Slot
from gameproxy.messages import FrameType, decode_admit
from gameproxy.reasons import CloseReason
from gameproxy.server_side import Dialling, ServerSide
from tests.fake_transport import FakeTransport
from tests.fuzz.choices import Choices, pieces

KEY, PROXY_NONCE = b"k" * 32, b"p" * 16
SESSION, SERVER, NONCE = "session-1", "server-1", "0123456789abcdef" * 2
PEER = Peer("203.0.113.5", 40000, False, "198.51.100.1", 7777)
HANDSHAKE_TIMEOUT = 5.0
CHALLENGE = b'{"protocol":1,"server":"server-1","nonce":"' + NONCE.encode() + b'"}'
ADMITTED = json.dumps({"session": SESSION, "proxy_nonce": PROXY_NONCE.hex()}).encode()
PROPERTIES = ("{}", '{"team": "red"}', '{"long":"' + "x" * 490 + '"}')
FORMATS_USED = (*FORMATS.values(), FrameFormat(length_bytes=1, max_frame=200))


@dataclass
class Script:
    """What the game server sends.

    :ivar stream: all of it.
    :ivar proofs: where in it an ADMITTED ends that is right.
    """

    format: FrameFormat
    stream: bytes = b""
    proofs: list[int] = field(default_factory=list)

    def say(self, type_: int, payload: bytes) -> None:
        """A frame, if it can be one."""
        body = bytes([type_]) + payload
        if self.format.smallest <= len(body) <= self.format.largest:
            self.stream += self.format.encode(body)

    def prove(self, text: bytes) -> None:
        """ADMITTED, with the MAC of a text that may say anything."""
        self.say(FrameType.ADMITTED, admitted_mac(KEY, text) + text)
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            said = json.loads(text)
            if (said["session"], said["proxy_nonce"]) == (SESSION, PROXY_NONCE.hex()):
                self.proofs.append(len(self.stream))


@dataclass
class Ended:
    """How an attempt ended."""

    admitted: list[Attempt] = field(default_factory=list)
    failed: list[AttemptFailed] = field(default_factory=list)


def target(data: bytes) -> None:
    """A format and properties, pieces, and then words of a script, each with a payload of its own."""
    choices = Choices(data)
    format = choices.one_of(FORMATS_USED)
    properties = choices.one_of(PROPERTIES)
    sizes = choices.sizes()
    script = Script(format)
    for _ in range(8):
        if not choices:
            break
        _add(script, choices)
    at_once = _attempt(script, properties, [len(script.stream) or 1])
    assert _attempt(script, properties, sizes) == at_once


def _add(script: Script, choices: Choices) -> None:
    word = choices.byte() % 9
    payload = choices.take(choices.byte())
    if word == 0:
        script.stream += payload
    elif word == 1:
        script.say(FrameType.CHALLENGE, CHALLENGE)
    elif word == 2:
        script.say(FrameType.CHALLENGE, payload)
    elif word == 3:
        script.prove(ADMITTED)
    elif word == 4:
        script.prove(payload)
    elif word == 5:
        script.say(FrameType.ADMITTED, payload + ADMITTED)
    elif word == 6:
        script.say(FrameType.REFUSED, payload)
    elif word == 7:  # what the proxy's own ADMIT would be, sent back
        script.say(FrameType.ADMITTED, admit_mac(KEY, ADMITTED) + ADMITTED)
    else:
        script.say(payload[0] if payload else 0x10, payload[1:])


def _attempt(script: Script, properties: str, sizes: list[int]) -> tuple[object, ...]:
    """Dial, and hear all of it; how that ended, in a form that can be compared."""
    reactor, transport, ended = MemoryReactorClock(), FakeTransport(), Ended()
    dialect = Dialect("native", script.format)
    dialling = Dialling(
        reactor,
        lambda size: PROXY_NONCE[:size],
        script.format,
        dialect,
        "handshake",
        HANDSHAKE_TIMEOUT,
        HANDSHAKE_TIMEOUT,
    )
    slot = Slot(SESSION, SERVER, "echo", "192.0.2.1", 9000, KEY)
    attempt = ServerSide(dialling, slot, Introduction(SESSION, "ada", PEER, properties))
    attempt.admitted.addCallbacks(
        ended.admitted.append, lambda failure: ended.failed.append(failure.value)
    )
    factory = reactor.tcpClients[0][2]
    transport.connect(factory.buildProtocol(None))
    for piece in pieces(script.stream, sizes):
        transport.deliver(piece)
    answer = _answer(transport.written, script.format)
    early = b""
    if ended.admitted:
        early = _is_proved(attempt, answer, script)
    elif not ended.failed:
        reactor.advance(HANDSHAKE_TIMEOUT)
    assert len(ended.admitted) + len(ended.failed) == 1
    for failure in ended.failed:
        assert isinstance(failure, AttemptFailed)
        assert failure.reason in (CloseReason.HANDSHAKE_FAILED, CloseReason.REFUSED)
        assert failure.reason is CloseReason.REFUSED or str(failure).isascii()
    transport.reset()
    _nothing_waits(reactor)
    assert attempt.gone.called
    outcomes = tuple((one.reason, one.busy, one.message) for one in ended.failed)
    return len(ended.admitted), outcomes, answer, early


def _answer(written: bytes, format: FrameFormat) -> bytes | None:
    """The body of the one frame that the proxy may send; ``None``: it has sent nothing."""
    if not written:
        return None
    header = format.parse(written, 0)
    assert header is not None and sum(header) == len(written), "more than one frame"
    body = written[header[0] :]
    assert body[0] == FrameType.ADMIT
    assert body[1:33] == admit_mac(KEY, body[33:])
    admit = decode_admit(body[33:])
    assert (admit.session, admit.server, admit.proxy_nonce) == (SESSION, SERVER, PROXY_NONCE.hex())
    assert admit.address == PEER.address
    return body


def _is_proved(attempt: ServerSide, answer: bytes | None, script: Script) -> bytes:
    """A session is let in after an ADMIT, and handed over behind an ADMITTED that is right, with what may pass of what
    follows it."""
    assert answer is not None, "let in without an ADMIT"
    early = attempt.hand_over().early
    verdicts = Dialect("native", script.format).server_verdicts
    behind = [script.stream[end:] for end in script.proofs]
    assert early in [FrameScanner(script.format, verdicts).scan(rest) for rest in behind]
    return bytes(early)


def _nothing_waits(clock: Clock) -> None:
    assert not [call for call in clock.getDelayedCalls() if call.active()]

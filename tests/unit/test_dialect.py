"""Dialects: which frames there are in each, and that they fit the frames of the game."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.dialect import Dialect
from gameproxy.frame_format import FORMATS
from gameproxy.framing import FrameError, FrameFormat, Framer, FrameScanner
from gameproxy.interfaces import Waiting
from gameproxy.messages import OWN_FRAME_MAX, FrameType, Welcome
from gameproxy.reasons import ADVICE, CloseReason, Refusal
from gameproxy.strict_json import encode_object

INT32 = FORMATS["int32"]
SMALL = FORMATS["vim-arcade"]
NARROW = FrameFormat(length_bytes=2, length_adjustment=-65_000, max_frame=100_000)
"""Its field cannot express more than 535 bytes, though more would be allowed."""
TEXTS = st.text(st.characters(exclude_categories=()), max_size=600)
WELCOME = Welcome("s", "ada", "garden-1", "garden")


def bodies(format: FrameFormat, stream: bytes) -> list[bytes]:
    framer = Framer(format)
    framer.feed(stream)
    found = list(framer.frames())
    assert framer.pending == 0
    return found


def read(format: FrameFormat, stream: bytes) -> tuple[int, dict[str, Any]]:
    """The type and the JSON of the only frame of a stream."""
    [body] = bodies(format, stream)
    return body[0], json.loads(body[1:])


class WordsTests(SynchronousTestCase):
    """What a client is told."""

    def test_native(self) -> None:
        """A native client is told everything, in frames."""
        native = Dialect("native", INT32)
        type_, said = read(INT32, native.waiting(Waiting("queued", 3)))
        self.assertEqual((type_, said["state"], said["position"]), (FrameType.STATUS, "queued", 3))
        self.assertIn("3", said["message"])
        type_, said = read(INT32, native.waiting(Waiting("starting", 1)))
        self.assertEqual((said["state"], said["position"]), ("starting", 1))
        self.assertIn("started", said["message"])
        type_, said = read(INT32, native.connecting())
        self.assertEqual((type_, said["state"]), (FrameType.STATUS, "connecting"))
        self.assertNotIn("position", said)
        self.assertEqual(bodies(INT32, native.welcome(WELCOME)), [WELCOME.encode()])
        refusal = Refusal(CloseReason.THROTTLED, retry_after=2.5)
        message = ADVICE[CloseReason.THROTTLED]
        self.assertEqual(
            read(INT32, native.error(refusal)),
            (FrameType.ERROR, {"code": "throttled", "message": message, "retry_after": 2.5}),
        )
        self.assertEqual(
            read(INT32, native.close(CloseReason.IDLE, "Wake up.")),
            (FrameType.CLOSE, {"code": "idle", "message": "Wake up."}),
        )
        self.assertEqual(bodies(INT32, native.close_as_sent(b"\x06{ }")), [b"\x06{ }"])

    def test_preamble(self) -> None:
        """A preamble client is told what a native one is up to WELCOME, and nothing after it."""
        preamble, native = Dialect("preamble", INT32), Dialect("native", INT32)
        waiting, refusal = Waiting("queued", 1), Refusal(CloseReason.BANNED)
        self.assertEqual(preamble.waiting(waiting), native.waiting(waiting))
        self.assertEqual(preamble.connecting(), native.connecting())
        self.assertEqual(preamble.welcome(WELCOME), native.welcome(WELCOME))
        self.assertEqual(preamble.error(refusal), native.error(refusal))
        self.assertEqual(preamble.close(CloseReason.IDLE, "x"), b"")
        self.assertEqual(preamble.close_as_sent(b"\x06{}"), b"")

    def test_plain(self) -> None:
        """A plain client is told nothing at all."""
        plain = Dialect("plain", INT32)
        self.assertEqual(plain.waiting(Waiting("queued", 1)), b"")
        self.assertEqual(plain.connecting(), b"")
        self.assertEqual(plain.welcome(WELCOME), b"")
        self.assertEqual(plain.error(Refusal(CloseReason.BANNED)), b"")
        self.assertEqual(plain.close(CloseReason.IDLE, "x"), b"")
        self.assertEqual(plain.close_as_sent(b"\x06{}"), b"")

    def test_unknown(self) -> None:
        """There are no other dialects."""
        self.assertRaises(ValueError, Dialect, "Native", INT32)


class FitTests(SynchronousTestCase):
    """Frames of the proxy's own fit the game's frames, and the bound of their own."""

    @given(TEXTS, st.sampled_from((INT32, SMALL, NARROW)))
    def test_messages_are_cut(self, text: str, format: FrameFormat) -> None:
        """A message of any length and characters is cut just so that it fits, and JSON stays JSON."""
        dialect = Dialect("native", format)
        room = min(OWN_FRAME_MAX, format.largest)
        for message in (text, text * 10):
            for stream in (
                dialect.error(Refusal(CloseReason.REFUSED, message, 60.0)),
                dialect.close(CloseReason.KICKED, message),
            ):
                [body] = bodies(format, stream)
                self.assertLessEqual(len(body), room)
                said = json.loads(body[1:])["message"]
                self.assertTrue(message.startswith(said))
                if said != message:
                    more = encode_object({"message": message[: len(said) + 1]})
                    self.assertGreater(
                        len(body) + len(more) - len(encode_object({"message": said})), room
                    )

    def test_cut_exactly(self) -> None:
        """What fits to the byte is whole; one character more, or a thousand, are cut to that."""
        for format in (INT32, SMALL, NARROW):
            dialect = Dialect("native", format)
            overhead = len(bodies(format, dialect.close(CloseReason.LEFT, ""))[0])
            room = min(OWN_FRAME_MAX, format.largest) - overhead
            for extra in (0, 1, 1000, 1_000_000):
                message = "x" * (room + extra)
                _, said = read(format, dialect.close(CloseReason.LEFT, message))
                self.assertEqual(len(said["message"]), room)
            _, said = read(format, dialect.close(CloseReason.LEFT, '"' * room))
            self.assertEqual(len(said["message"]), room // 2)
            _, said = read(format, dialect.close(CloseReason.LEFT, "\U0001f600" * room))
            self.assertEqual(len(said["message"]), room // 4)

    def test_longest_welcome(self) -> None:
        """The longest names that there may be fit the smallest format with a name."""
        name = "\U0001f600" * 64
        welcome = Welcome("0" * 32, f"guest:{name}", f"{name}-0a1b2c", name)
        for format in FORMATS.values():
            stream = Dialect("native", format).welcome(welcome)
            self.assertEqual(bodies(format, stream), [welcome.encode()])

    def test_advice_fits(self) -> None:
        """What we say ourselves is never cut, not even in the smallest frames that a configuration may have."""
        smallest = FrameFormat(length_bytes=2, max_frame=512)
        dialect = Dialect("native", smallest)
        for reason in CloseReason:
            _, said = read(smallest, dialect.error(Refusal(reason, retry_after=86_400.123)))
            self.assertEqual(said["message"], ADVICE[reason])
        for state in ("queued", "starting"):
            read(smallest, dialect.waiting(Waiting(state, 1_000_000)))


class VerdictTests(SynchronousTestCase):
    """Which types may come from whom, and when."""

    def passes(self, dialect: Dialect, side: str, type_: int) -> str:
        """What becomes of a frame of this type: passes, collected or refused."""
        scanner = FrameScanner(INT32, getattr(dialect, f"{side}_verdicts"))
        scanner.scan(INT32.encode(bytes([type_]) + b"{}"))
        if isinstance(scanner.stopped, FrameError):
            return "refused"
        return "passes" if scanner.stopped is None else "collected"

    def test_native(self) -> None:
        """Clients may send CLOSE, game servers SETTINGS, CLOSE and KICK; before WELCOME nobody; games' types pass."""
        native = Dialect("native", INT32)
        self.assertTrue(native.begins_with_auth)
        allowed: dict[str, dict[int, str]] = {
            "early": {},
            "client": {FrameType.CLOSE: "collected"},
            "server": {
                FrameType.SETTINGS: "passes",
                FrameType.CLOSE: "collected",
                FrameType.KICK: "collected",
            },
        }
        for side, types in allowed.items():
            for type_ in range(256):
                wanted = types.get(type_, "passes" if type_ >= 0x10 else "refused")
                self.assertEqual(self.passes(native, side, type_), wanted, (side, type_))

    def test_preamble(self) -> None:
        """Up to WELCOME as in native; after it every type passes, both ways."""
        preamble = Dialect("preamble", INT32)
        self.assertTrue(preamble.begins_with_auth)
        for type_ in range(256):
            early = "passes" if type_ >= 0x10 else "refused"
            self.assertEqual(self.passes(preamble, "early", type_), early)
            self.assertEqual(self.passes(preamble, "client", type_), "passes")
            self.assertEqual(self.passes(preamble, "server", type_), "passes")

    def test_plain(self) -> None:
        """Every type passes from the first frame on."""
        plain = Dialect("plain", INT32)
        self.assertFalse(plain.begins_with_auth)
        for type_ in range(256):
            for side in ("early", "client", "server"):
                self.assertEqual(self.passes(plain, side, type_), "passes")

"""The framer and the scanner."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import cycle

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.framing import (
    FORMATS,
    Control,
    FrameError,
    FrameFormat,
    Framer,
    FrameScanner,
    Verdict,
)
from gameproxy.messages import FrameType

INT32 = FORMATS["int32"]
ALL_FORMATS = [
    *FORMATS.values(),
    FrameFormat(length_offset=5, length_bytes=3, byte_order="little", length_adjustment=-3),
    FrameFormat(length_bytes=1, max_frame=200),
    FrameFormat(length_bytes=8, byte_order="little", length_adjustment=4),
    FrameFormat(length_offset=2, length_bytes="varint", length_adjustment=-1),
    FrameFormat(length_bytes="varint", varint_bytes=1),
]
SERVER_VERDICTS: dict[int, Verdict] = {
    FrameType.SETTINGS: Verdict.PASS,
    FrameType.CLOSE: Verdict.COLLECT,
    FrameType.KICK: Verdict.COLLECT,
}


def chunked(stream: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """``stream`` in chunks of these sizes, taken again and again."""
    at = 0
    for size in cycle(sizes):
        if at >= len(stream):
            return
        yield stream[at : at + size]
        at += size


def bad_header(format: FrameFormat) -> bytes | None:
    """A header that no frame may have, or ``None`` where the format has none."""
    if format.length_bytes == "varint":
        return bytes(format.length_offset) + b"\x80" * format.varint_bytes
    if format.length_adjustment < 0:
        return bytes(format.length_offset + format.length_bytes)
    highest = (1 << 8 * format.length_bytes) - 1 + format.length_adjustment
    if highest > format.max_frame:
        return bytes(format.length_offset) + b"\xff" * format.length_bytes
    return None


def counting(format: FrameFormat) -> tuple[FrameFormat, list[int]]:
    """A copy of ``format`` that notes where each of its parses began."""
    counted = replace(format)
    calls: list[int] = []

    def parse(buffer: bytes | memoryview, at: int) -> tuple[int, int] | None:
        calls.append(at)
        return format.parse(buffer, at)

    object.__setattr__(counted, "parse", parse)
    return counted, calls


formats = st.sampled_from(ALL_FORMATS)
chunk_sizes = st.one_of(
    st.just([1]),
    st.just([1 << 16]),
    st.lists(st.integers(0, 30), max_size=12).map(lambda s: [*s, 1]),
)
examples = settings(max_examples=150)


@st.composite
def formats_and_bodies(draw: st.DrawFn) -> tuple[FrameFormat, list[bytes]]:
    """A format, and bodies that it can carry: empty and reserved ones, and some of two-byte varints."""
    format = draw(formats)
    start = st.sampled_from([b"", b"\x03s", b"\x06bye", b"\x0bout", b"\x10", b"\x20game", b"\xff"])
    length = st.one_of(st.integers(0, 12), st.integers(120, 140))
    bodies = []
    for first, more in draw(st.lists(st.tuples(start, length), max_size=12)):
        body = first + bytes(more if first else 0)
        bodies.append(body[: format.largest].ljust(format.smallest, b"\x30"))
    return format, bodies


class FramerTests(SynchronousTestCase):
    """Streams cut into bodies."""

    @given(formats_and_bodies(), chunk_sizes)
    @examples
    def test_bodies_come_out_as_they_went_in(
        self, frames: tuple[FrameFormat, list[bytes]], sizes: list[int]
    ) -> None:
        """Any bodies in any format and any chunks come out the same, each as soon as it is complete."""
        format, bodies = frames
        stream = b"".join(map(format.encode, bodies))
        framer = Framer(format)
        out: list[bytes] = []
        fed = 0
        for chunk in chunked(stream, sizes):
            framer.feed(chunk)
            out.extend(framer.frames())
            fed += len(chunk)
            consumed = sum(len(format.encode(body)) for body in out)
            self.assertEqual(framer.pending, fed - consumed)
            if len(out) < len(bodies):
                self.assertLess(framer.pending, len(format.encode(bodies[len(out)])))
        self.assertEqual(out, bodies)
        self.assertTrue(all(type(body) is bytes for body in out))

    @given(formats_and_bodies(), chunk_sizes, st.integers(0, 12), st.integers(0, 12))
    @examples
    def test_the_rest_is_the_stream_as_it_came(
        self,
        frames: tuple[FrameFormat, list[bytes]],
        sizes: list[int],
        taken: int,
        looked: int,
    ) -> None:
        """After any frame the rest is exactly what was not consumed, also when the next header was looked at."""
        format, bodies = frames
        stream = b"".join(map(format.encode, bodies)) + format.header(format.largest) + b"\x10part"
        framer = Framer(format)
        for chunk in chunked(stream, sizes):
            framer.feed(chunk)
        out = [body for _, body in zip(range(taken), framer.frames(), strict=False)]
        if looked > taken:
            out.extend(framer.frames())
        consumed = len(b"".join(map(format.encode, out)))
        self.assertEqual(out, bodies[: len(out)])
        self.assertEqual(framer.take_rest(), stream[consumed:])
        self.assertEqual((framer.pending, framer.take_rest()), (0, b""))

    def test_feeding_goes_on_after_the_rest_was_taken(self) -> None:
        """What is fed after the rest was taken begins with a header of its own."""
        framer = Framer(INT32)
        framer.feed(INT32.header(5) + b"pa")
        self.assertEqual(list(framer.frames()), [])
        self.assertEqual(framer.take_rest(), INT32.header(5) + b"pa")
        framer.feed(INT32.encode(b"new"))
        self.assertEqual(list(framer.frames()), [b"new"])

    def test_the_consumer_may_stop_and_feed_anywhere(self) -> None:
        """Leaving the loop loses nothing, and chunks fed inside it are seen by it."""
        framer = Framer(INT32)
        framer.feed(INT32.encode(b"one") + INT32.encode(b"two"))
        for first in framer.frames():
            self.assertEqual(first, b"one")
            break
        out = []
        for body in framer.frames():
            out.append(body)
            if body == b"two":
                framer.feed(b"")
                framer.feed(INT32.encode(b"three"))
        self.assertEqual(out, [b"two", b"three"])

    def test_a_bad_frame_breaks_the_framer(self) -> None:
        """The good frames before a bad one come first; then it is an error for ever, and nothing more is kept."""
        for format in ALL_FORMATS:
            bad = bad_header(format)
            if bad is None:
                continue
            for size in (1, 3, 1000):
                framer = Framer(format)
                out: list[bytes] = []
                stream = format.encode(b"fine") + format.encode(b"good") + bad
                with self.assertRaises(FrameError):
                    for chunk in chunked(stream, [size]):
                        framer.feed(chunk)
                        for body in framer.frames():
                            out.append(body)
                self.assertEqual(out, [b"fine", b"good"])
                framer.feed(format.encode(b"more"))
                self.assertEqual(framer.pending, 0)
                self.assertRaises(FrameError, next, framer.frames())
                self.assertRaises(FrameError, framer.take_rest)

    def test_max_body(self) -> None:
        """A lower limit for bodies holds exactly; a higher one than the format's changes nothing."""
        framer = Framer(INT32, 4096)
        framer.feed(INT32.encode(bytes(4096)))
        self.assertEqual([len(body) for body in framer.frames()], [4096])
        framer.feed(INT32.header(4097))
        error = self.assertRaises(FrameError, next, framer.frames())
        self.assertIn("4096 are allowed", str(error))

        framer = Framer(FORMATS["vim-arcade"], 4096)
        framer.feed(bytes.fromhex("000003fd"))
        self.assertRaises(FrameError, next, framer.frames())

    def test_a_body_is_copied_once(self) -> None:
        """Cutting out a body that spans many chunks takes the memory of one body, not of two."""
        framer = Framer(INT32)
        body = bytes(1_000_000)
        for chunk in chunked(INT32.encode(body), [600_000]):
            framer.feed(chunk)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertEqual(list(framer.frames()), [body])
        self.assertLess(tracemalloc.get_traced_memory()[1], 1_100_000)

    def test_one_byte_chunks_parse_a_header_once(self) -> None:
        """However a body trickles in, its header is not parsed again: the work is linear."""
        for format in ALL_FORMATS:
            counted, calls = counting(format)
            framer = Framer(counted)
            body = bytes(min(100, format.largest))
            stream = format.encode(body)
            out: list[bytes] = []
            for chunk in chunked(stream, [1]):
                framer.feed(chunk)
                out.extend(framer.frames())
            self.assertEqual(out, [body])
            self.assertLessEqual(len(calls), 2 * format.header_size)

    def test_many_frames_in_one_chunk_are_parsed_once_each(self) -> None:
        """Small frames in a big chunk cost one parse each, in place."""
        counted, calls = counting(INT32)
        framer = Framer(counted)
        framer.feed(INT32.encode(b"\x10hi") * 1000)
        self.assertEqual(len(list(framer.frames())), 1000)
        self.assertEqual(calls, list(range(0, 7000, 7)))


def relay(scanner: FrameScanner, chunks: Iterable[bytes | memoryview]) -> bytes:
    """What passes of the chunks of a stream until the scan stops."""
    passed = b""
    for chunk in chunks:
        if scanner.stopped is None:
            passed += scanner.scan(chunk)
    return passed


def reused(chunks: Iterable[bytes]) -> Iterator[memoryview]:
    """The chunks as views of one buffer, which holds other bytes as soon as the next one is asked for."""
    buffer = bytearray(1 << 16)
    for chunk in chunks:
        buffer[: len(chunk)] = chunk
        yield memoryview(buffer)[: len(chunk)]
        buffer[: len(chunk)] = b"\xee" * len(chunk)


def expected_relay(
    format: FrameFormat, bodies: list[bytes], allowed: int, looked_at: bool
) -> tuple[bytes, int, Control | None]:
    """What passes, in how many whole frames, and what is collected, of the first ``allowed`` bytes of a stream."""
    passed, whole = b"", 0
    for body in bodies:
        header = format.header(len(body))
        frame = header + body
        collected = looked_at and body[:1] in (b"\x06", b"\x0b")
        if collected:
            return passed, whole, Control(body) if len(frame) <= allowed else None
        if len(frame) > allowed:
            return (
                passed + (frame[:allowed] if allowed >= len(header) + looked_at else b""),
                whole,
                None,
            )
        passed += frame
        whole += 1
        allowed -= len(frame)
    return passed, whole, None


class FrameScannerTests(SynchronousTestCase):
    """Streams that are relayed."""

    @given(formats_and_bodies(), chunk_sizes, st.booleans(), st.integers(0, 10), st.booleans())
    @examples
    def test_all_passes_but_what_is_collected(
        self,
        frames: tuple[FrameFormat, list[bytes]],
        sizes: list[int],
        looked_at: bool,
        cut: int,
        shared_buffer: bool,
    ) -> None:
        """Any stream, in any chunks and ending anywhere, passes as it came, up to the first frame that is collected."""
        format, bodies = frames
        stream = b"".join(map(format.encode, bodies))
        stream = stream[: max(0, len(stream) - cut)]
        scanner = FrameScanner(format, SERVER_VERDICTS if looked_at else None)
        chunks = chunked(stream, sizes)
        relayed = relay(scanner, reused(chunks) if shared_buffer else chunks)
        passed, whole, control = expected_relay(format, bodies, len(stream), looked_at)
        self.assertEqual((relayed, scanner.stopped), (passed, control))
        self.assertEqual((scanner.frames, scanner.size), (whole, len(passed)))

    @given(formats_and_bodies(), chunk_sizes, st.binary(max_size=30))
    @examples
    def test_nothing_of_a_bad_frame_passes(
        self, frames: tuple[FrameFormat, list[bytes]], sizes: list[int], after: bytes
    ) -> None:
        """All before a bad header passes; nothing of it does, and nothing after it."""
        format, bodies = frames
        bodies = [body for body in bodies if body[:1] not in (b"\x06", b"\x0b")]
        bad = bad_header(format)
        if bad is None:
            bad = format.encode(b"\x01not here")
        stream = b"".join(map(format.encode, bodies))
        scanner = FrameScanner(format, SERVER_VERDICTS)
        relayed = relay(scanner, chunked(stream + bad + after, sizes))
        self.assertIsInstance(scanner.stopped, FrameError)
        self.assertEqual(relayed, stream)
        self.assertEqual((scanner.frames, scanner.size), (len(bodies), len(stream)))
        self.assertTrue(scanner.between_frames)

    def test_bytes_that_may_pass_are_not_copied(self) -> None:
        """A chunk of which all may pass is passed itself, whole frames or parts of a body alike."""
        scanner = FrameScanner(INT32, {})
        for data in (
            INT32.encode(b"\x10hi") * 3,
            INT32.header(1000) + b"\x20",
            bytes(500),
            bytes(499),
            INT32.encode(b""),
        ):
            self.assertIs(scanner.scan(data), data)
        self.assertEqual(scanner.scan(b""), b"")

    def test_bytes_pass_as_they_come(self) -> None:
        """A body is not waited for: what is known to belong to a good frame passes at once."""
        scanner = FrameScanner(INT32, {})
        self.assertEqual(scanner.scan(b"\x00\x00\x00"), b"")
        self.assertTrue(scanner.between_frames)
        self.assertEqual(scanner.scan(b"\x03"), b"")
        self.assertEqual(scanner.scan(b"\x10"), b"\x00\x00\x00\x03\x10")
        self.assertEqual((scanner.between_frames, scanner.remaining, scanner.frames), (False, 2, 0))
        self.assertEqual(scanner.scan(b"h"), b"h")
        self.assertEqual(scanner.scan(b"i\x00"), b"i")
        self.assertEqual((scanner.between_frames, scanner.remaining, scanner.frames), (True, 0, 1))
        self.assertEqual(scanner.size, 7)

    def test_a_header_alone_passes_when_types_are_not_looked_at(self) -> None:
        """Without verdicts nothing of a body is waited for, and every first byte passes."""
        scanner = FrameScanner(INT32, None)
        self.assertEqual(scanner.scan(INT32.header(2)), INT32.header(2))
        self.assertEqual(scanner.scan(b"\x00\x00"), b"\x00\x00")
        every = b"".join(INT32.encode(bytes([first])) for first in range(256))
        self.assertEqual(scanner.scan(every), every)
        self.assertEqual(scanner.frames, 257)

    def test_collected_frames_are_short(self) -> None:
        """Of a frame that is to be collected no more than 4096 bytes are ever kept; one that passes may be long."""
        verdicts = {0x06: Verdict.COLLECT, 0x03: Verdict.PASS}
        scanner = FrameScanner(INT32, verdicts)
        self.assertEqual(scanner.scan(INT32.encode(b"\x06" * 4096)), b"")
        self.assertEqual(scanner.stopped, Control(b"\x06" * 4096))
        scanner = FrameScanner(INT32, verdicts)
        self.assertEqual(scanner.scan(INT32.header(4097) + b"\x06"), b"")
        self.assertIsInstance(scanner.stopped, FrameError)
        scanner = FrameScanner(INT32, verdicts)
        settings = INT32.encode(b"\x03" * 4097)
        self.assertEqual(scanner.scan(settings), settings)

    def test_reserved_types_without_a_verdict_are_bad(self) -> None:
        """Of the 16 reserved types only those with a verdict may come; all others are the game's and pass."""
        for first in range(256):
            scanner = FrameScanner(INT32, {0x03: Verdict.PASS})
            good = INT32.encode(b"\x30good")
            frame = INT32.encode(bytes([first]))
            passed = scanner.scan(good + frame + good)
            if first == 0x03 or first >= 0x10:
                self.assertEqual(passed, good + frame + good)
                self.assertIsNone(scanner.stopped)
            else:
                self.assertEqual(passed, good)
                self.assertIn(f"0x{first:02x}", str(scanner.stopped))

    def test_collecting_stops_the_stream(self) -> None:
        """While a frame is collected nothing passes; when it is complete the scan has stopped for good."""
        close = INT32.encode(b"\x06bye")
        game = INT32.encode(b"\x10hi")
        scanner = FrameScanner(INT32, SERVER_VERDICTS)
        self.assertEqual(scanner.scan(game + close[:6]), game)
        self.assertEqual(scanner.scan(close[6:7]), b"")
        self.assertIsNone(scanner.stopped)
        self.assertTrue(scanner.between_frames)
        self.assertEqual(scanner.scan(close[7:] + game + game[:5]), b"")
        self.assertEqual(scanner.stopped, Control(b"\x06bye"))
        self.assertRaises(RuntimeError, scanner.scan, game)
        self.assertEqual(scanner.frames, 1)

    def test_a_bad_frame_stops_the_stream(self) -> None:
        """After a bad frame nothing is scanned any more."""
        scanner = FrameScanner(INT32, {})
        self.assertEqual(scanner.scan(b"\xff\xff\xff\xff"), b"")
        self.assertRaises(RuntimeError, scanner.scan, INT32.encode(b"\x10"))

    def test_verdicts_may_change_on_the_way(self) -> None:
        """New verdicts, when relaying begins, hold from the first frame whose type was not scanned before."""
        scanner = FrameScanner(INT32, {})
        close = INT32.encode(b"\x06bye")
        self.assertEqual(scanner.scan(INT32.header(2) + b"\x10"), INT32.header(2) + b"\x10")
        self.assertEqual(scanner.scan(b"\x06" + close[:4]), b"\x06")
        scanner.verdicts = None
        self.assertEqual(scanner.scan(close[4:] + close[:4]), close + close[:4])
        scanner.verdicts = SERVER_VERDICTS
        self.assertEqual(scanner.scan(close[4:] + close[:4]), close[4:])
        self.assertEqual(scanner.scan(close[4:]), b"")
        self.assertEqual(scanner.stopped, Control(b"\x06bye"))

    def test_one_byte_chunks_parse_a_header_once(self) -> None:
        """However a body trickles in, passing or collected, its header is not parsed again."""
        for format in ALL_FORMATS:
            for first in (b"\x10", b"\x06"):
                counted, calls = counting(format)
                scanner = FrameScanner(counted, SERVER_VERDICTS)
                stream = format.encode(first + bytes(min(99, format.largest - 1)))
                relay(scanner, chunked(stream, [1]))
                self.assertEqual(scanner.stopped is not None, first == b"\x06")
                self.assertLessEqual(len(calls), format.header_size + 1)

    def test_whole_frames_are_parsed_once_each(self) -> None:
        """Small frames in a big chunk cost one parse each, in place."""
        counted, calls = counting(INT32)
        FrameScanner(counted, SERVER_VERDICTS).scan(INT32.encode(b"\x10hi") * 1000)
        self.assertEqual(calls, list(range(0, 7000, 7)))

    def test_a_control_does_not_show_its_body(self) -> None:
        """What was sent does not reach a log by way of a repr."""
        self.assertEqual(repr(Control(b"\x06secret")), "Control()")

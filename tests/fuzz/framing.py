"""Streams of frames, of any format and in any pieces: framer and scanner make of them what a plain walk over the whole
stream makes of it, which is written anew here."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field

from gameproxy.dialect import Dialect
from gameproxy.framing import (
    FORMATS,
    Control,
    FrameError,
    FrameFormat,
    Framer,
    FrameScanner,
    Verdict,
)
from tests.fuzz.choices import Choices, pieces

ALL_FORMATS = (
    *FORMATS.values(),
    FrameFormat(length_offset=5, length_bytes=3, byte_order="little", length_adjustment=-3),
    FrameFormat(length_bytes=1, max_frame=200),
    FrameFormat(length_bytes=8, byte_order="little", length_adjustment=4),
    FrameFormat(length_offset=2, length_bytes="varint", length_adjustment=-1),
    FrameFormat(length_bytes="varint", varint_bytes=1),
    FrameFormat(length_bytes="varint", varint_bytes=10),
)
NATIVE = Dialect("native", FORMATS["int32"])
VERDICTS = (None, NATIVE.early_verdicts, NATIVE.client_verdicts, NATIVE.server_verdicts)
OWN_MAX = 4096


@dataclass
class Walk:
    """What a stream is.

    :ivar frames: where each begins, its body begins, and it ends; the last one may end beyond the stream.
    :ivar is_bad: whether a bad frame follows them; if not, what follows is no whole header.
    """

    frames: list[tuple[int, int, int]] = field(default_factory=list)
    is_bad: bool = False

    @classmethod
    def over(cls, stream: bytes, format: FrameFormat, most: int) -> Walk:
        walk, at = cls(), 0
        while at < len(stream):
            header = _header(stream[at + format.length_offset :], format)
            if header is None:
                break
            size, length = header
            if size < 0 or not 0 <= length <= most:
                walk.is_bad = True
                break
            body = at + format.length_offset + size
            walk.frames.append((at, body, body + length))
            at = body + length
        return walk


def _header(data: bytes, format: FrameFormat) -> tuple[int, int] | None:
    """Bytes of a length field, and of the body; ``None``: it is not all there. A varint too long has -1."""
    if format.length_bytes != "varint":
        if len(data) < format.length_bytes:
            return None
        value = int.from_bytes(data[: format.length_bytes], format.byte_order)
        return format.length_bytes, value + format.length_adjustment
    value = 0
    for index in range(format.varint_bytes):
        if index >= len(data):
            return None
        value += data[index] % 128 * 128**index
        if data[index] < 128:
            return index + 1, value + format.length_adjustment
    return -1, 0


def target(data: bytes) -> None:
    """A format, verdicts and pieces, and then the stream."""
    choices = Choices(data)
    format = choices.one_of(ALL_FORMATS)
    verdicts = choices.one_of(VERDICTS)
    most = choices.one_of((format.max_frame, min(format.max_frame, 40)))
    hands_over_after = choices.byte()
    sizes = choices.sizes()
    stream = choices.rest()
    _cut_out(stream, format, sizes, most)
    _cut_out_and_hand_over(stream, format, sizes, hands_over_after)
    walk = Walk.over(stream, format, format.max_frame)
    for moves_on in (False, True):
        _let_pass(stream, format, sizes, verdicts, walk, moves_on)


def _cut_out(stream: bytes, format: FrameFormat, sizes: list[int], most: int) -> None:
    """A framer gives the bodies that there are, and each as soon as it is whole."""
    walk = Walk.over(stream, format, most)
    whole = [(body, end) for _, body, end in walk.frames if end <= len(stream)]
    ends = [end for _, end in whole]
    framer, bodies, fed, broken = Framer(format, most), [], 0, False
    for piece in pieces(stream, sizes):
        framer.feed(piece)
        fed += len(piece)
        try:
            bodies.extend(framer.frames())
        except FrameError:
            broken = True
            assert framer.pending == 0
        else:
            assert not broken
            done = ends[len(bodies) - 1] if bodies else 0
            assert framer.pending == fed - done
            assert len(bodies) == bisect_right(ends, fed)
    assert bodies == [stream[body:end] for body, end in whole]
    assert broken == walk.is_bad
    for body in {len(body): body for body in bodies}.values():
        if format.smallest <= len(body) <= format.largest:
            frame = format.encode(body)
            assert [end for _, _, end in Walk.over(frame, format, most).frames] == [len(frame)]


def _cut_out_and_hand_over(
    stream: bytes, format: FrameFormat, sizes: list[int], count: int
) -> None:
    """After so many bodies the rest of what was fed is the stream as it came."""
    framer, taken, fed = Framer(format), 0, 0
    walk = Walk.over(stream, format, format.max_frame)
    try:
        for piece in pieces(stream, sizes):
            framer.feed(piece)
            fed += len(piece)
            for _ in framer.frames():
                taken += 1
                if taken > count:
                    break
            if taken > count:
                break
        done = walk.frames[taken - 1][2] if taken else 0
        assert framer.take_rest() == stream[done:fed]
        assert framer.pending == 0
        another = format.encode(bytes(max(1, format.smallest)))
        framer.feed(another)
        assert len(list(framer.frames())) == 1, "it goes on where it was"
    except FrameError:
        assert walk.is_bad


def _let_pass(
    stream: bytes,
    format: FrameFormat,
    sizes: list[int],
    verdicts: Mapping[int, Verdict] | None,
    walk: Walk,
    moves_on: bool,
) -> None:
    """A scanner lets pass what may, whether it goes on alone or others go on from it wherever that can be."""
    scanner, relayed = FrameScanner(format, verdicts), b""
    for piece in pieces(stream, sizes):
        if scanner.stopped is not None:
            break
        if moves_on and scanner.holds_nothing:
            next_one = FrameScanner(format, verdicts)
            next_one.skip(scanner.begun, scanner.size, scanner.remaining)
            scanner = next_one
        relayed += scanner.scan(piece)
    passed, begun, remaining, control, is_bad = _expected(stream, walk, verdicts)
    assert relayed == stream[:passed]
    assert (scanner.size, scanner.begun, scanner.remaining) == (passed, begun, remaining)
    assert scanner.frames == begun - (remaining > 0)
    assert scanner.between_frames == (remaining == 0)
    if is_bad:
        assert isinstance(scanner.stopped, FrameError)
    else:
        assert scanner.stopped == control
    held_back = passed < len(stream)
    assert scanner.holds_nothing == (not held_back)


def _expected(
    stream: bytes, walk: Walk, verdicts: Mapping[int, Verdict] | None
) -> tuple[int, int, int, Control | None, bool]:
    """Bytes that pass, frames begun, bytes that remain of the last, what was collected, and whether it is bad."""
    begun = 0
    for begin, body, end in walk.frames:
        if verdicts is not None and end > body:
            if body >= len(stream):
                return begin, begun, 0, None, False
            first = stream[body]
            verdict = verdicts.get(first) if first < 0x10 else Verdict.PASS
            if verdict is None or (verdict is Verdict.COLLECT and end - body > OWN_MAX):
                return begin, begun, 0, None, True
            if verdict is Verdict.COLLECT:
                whole = Control(stream[body:end]) if end <= len(stream) else None
                return begin, begun, 0, whole, False
        begun += 1
        if end > len(stream):
            return len(stream), begun, end - len(stream), None, False
    at = walk.frames[-1][2] if walk.frames else 0
    return at, begun, 0, None, walk.is_bad

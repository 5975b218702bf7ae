"""Frames cut out of a stream of bytes, and watched as they pass (docs/protocol, "Frames").

:class:`Framer` cuts a stream into whole bodies; :class:`FrameScanner` lets a stream pass, without gathering its frames,
up to the first that must not. There is no I/O here. What a frame is, :mod:`gameproxy.frame_format` says; its names are
at hand here too.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from itertools import islice
from typing import NamedTuple, overload

from gameproxy.frame_format import FORMATS, FrameError, FrameFormat, bad_length
from gameproxy.messages import OWN_FRAME_MAX, RESERVED_BELOW

__all__ = [
    "FORMATS",
    "Control",
    "FrameError",
    "FrameFormat",
    "FrameScanner",
    "Framer",
    "Mark",
    "Verdict",
]


class Framer:
    """Cuts a stream into whole bodies.

    Feed it chunks and take bodies from :meth:`frames`; the loop may be left after any body, and chunks may be fed
    inside it. A body is copied once at most, however it was chunked.

    :param max_body: largest body in bytes, when that is to be less than the format's ``max_frame``. The attribute may
        be changed when a body has been handed out; it holds from the next one on.
    """

    __slots__ = ("_at", "_broken", "_chunks", "_format", "_header", "_pending", "max_body")

    def __init__(self, format: FrameFormat, max_body: int | None = None) -> None:
        self._format = format
        self.max_body = format.max_frame if max_body is None else max_body
        self._chunks: deque[bytes] = deque()
        self._at = 0  # what comes before this in the first chunk is consumed
        self._pending = 0
        self._header: tuple[int, int] | None = None  # of the next frame: parsed, but not consumed
        self._broken: FrameError | None = None

    @property
    def pending(self) -> int:
        """Bytes held: fed, and not yet handed out."""
        return self._pending

    def feed(self, data: bytes) -> None:
        """Add a chunk of the stream, of any size. After a bad frame nothing more is kept."""
        if self._broken is None:
            self._chunks.append(data)
            self._pending += len(data)

    def frames(self) -> Iterator[bytes]:
        """The bodies that are complete, in order; each counts as consumed when it is handed out.

        :raises FrameError: the next frame is bad. It will be raised from now on.
        """
        while (header := self._header or self._read_header()) is not None:
            header_size, length = header
            if self._pending < header_size + length:
                return
            self._header = None
            yield self._take(header_size, length)

    def take_rest(self) -> bytes:
        """Hand out all that is held, as it came: the stream after the last body, headers and all.

        :raises FrameError: the stream is broken.
        """
        if self._broken is not None:
            raise self._broken
        self._header = None
        return self._take(0, self._pending) if self._pending else b""

    def _read_header(self) -> tuple[int, int] | None:
        if self._broken is not None:
            raise self._broken
        if not self._chunks:
            return None
        parse = self._format.parse
        try:
            header = parse(self._chunks[0], self._at)
            if header is None and len(self._chunks) > 1:
                header = parse(self._peek(self._format.header_size), 0)
            if header is not None and header[1] > self.max_body:
                raise bad_length(header[1], self.max_body)
        except FrameError as error:
            self._broken = error
            self._chunks.clear()
            self._pending = 0
            raise
        self._header = header
        return header

    def _peek(self, size: int) -> bytes:
        """The next ``size`` bytes, or all when there are fewer, without consuming them."""
        start = self._chunks[0][self._at : self._at + size]
        for chunk in islice(self._chunks, 1, None):
            if len(start) == size:
                break
            start += chunk[: size - len(start)]
        return start

    def _take(self, skip: int, size: int) -> bytes:
        """Consume ``skip`` bytes and then the ``size`` that are returned; so many are held."""
        self._pending -= skip + size
        chunk, start = self._chunks[0], self._at + skip
        end = start + size
        if end <= len(chunk):
            self._advance(skip + size)
            return chunk[start:end]
        self._advance(skip)
        pieces = []
        while size:
            piece = memoryview(self._chunks[0])[self._at : self._at + size]
            pieces.append(piece)
            size -= len(piece)
            self._advance(len(piece))
        return b"".join(pieces)

    def _advance(self, size: int) -> None:
        """Let go of the next ``size`` bytes; so many are held."""
        chunks = self._chunks
        at = self._at + size
        while chunks and at >= len(chunks[0]):
            at -= len(chunks.popleft())
        self._at = at


class Verdict(Enum):
    """What a :class:`FrameScanner` does with a frame whose first byte is reserved."""

    PASS = auto()
    COLLECT = auto()


@dataclass(frozen=True, slots=True)
class Control:
    """A frame that was taken out of the stream.

    :param body: its whole body, with the byte of type.
    """

    body: bytes = field(repr=False)


class Mark(NamedTuple):
    """Where a stream stands that is scanned: frames of which something has passed, bytes passed, and bytes of the last
    of these frames that are still to come."""

    begun: int
    size: int
    remaining: int


def _is_collected(first: int, length: int, verdicts: Mapping[int, Verdict]) -> bool:
    """Whether a frame of a reserved type is to be collected, and does not pass.

    :raises FrameError: it may do neither; or it is too long to be collected, which takes memory.
    """
    verdict = verdicts.get(first)
    if verdict is None:
        raise FrameError(f"a frame of type 0x{first:02x}, which may not come here")
    if verdict is Verdict.COLLECT and length > OWN_FRAME_MAX:
        raise bad_length(length, OWN_FRAME_MAX)
    return verdict is Verdict.COLLECT


class FrameScanner:
    """Watches a stream that is relayed, and says which of its bytes may pass.

    Bytes pass as they come; only an incomplete header is kept back, with the body's first byte when that is looked
    at. The scan stops at a bad frame, of which nothing passes, and after a frame that is to be collected: one of more
    than 4096 bytes is a bad frame.

    :param verdicts: what to do with frames by their first byte, when that is below 0x10; those not named are bad
        frames. Frames of other types and empty ones pass. ``None``: types are never looked at, all frames pass. The
        attribute may be changed between two scans, and holds for the frames whose first byte comes after that.
    """

    __slots__ = (
        "_begun",
        "_collected",
        "_held",
        "_missing",
        "_parse",
        "remaining",
        "size",
        "stopped",
        "verdicts",
    )

    def __init__(self, format: FrameFormat, verdicts: Mapping[int, Verdict] | None) -> None:
        self.remaining = 0
        """Bytes of the body that is passing which are still to come."""
        self.size = 0
        """Bytes passed."""
        self.stopped: Control | FrameError | None = None
        """What stopped the scan, if anything did: nothing passes any more."""
        self.verdicts = verdicts
        self._parse = format.parse
        self._begun = 0  # frames of which something has passed
        self._held = b""  # the start of a frame that cannot be judged yet
        self._collected = bytearray()  # the body of a frame being collected, so far
        self._missing = 0  # bytes of it still to come; 0: none is being collected

    @property
    def begun(self) -> int:
        """Frames of which something has passed."""
        return self._begun

    @property
    def frames(self) -> int:
        """Frames that have passed whole."""
        return self._begun - (self.remaining > 0)

    @property
    def between_frames(self) -> bool:
        """Whether what has passed ends where a frame ends."""
        return self.remaining == 0

    @property
    def holds_nothing(self) -> bool:
        """Whether all that was scanned has passed, so that somebody else may go on from here."""
        return self.stopped is None and not self._held and not self._missing

    def skip(self, begun: int, size: int, remaining: int) -> None:
        """Go on where somebody else has stopped who let the stream pass meanwhile.

        :param begun: frames of which something has passed there, and nothing here.
        :param size: bytes that have passed there.
        :param remaining: bytes of the body that was passing which are still to come.
        :raises RuntimeError: something is held here, which would have come first.
        """
        if not self.holds_nothing:
            raise RuntimeError("the scanner holds what comes first")
        self._begun += begun
        self.size += size
        self.remaining = remaining

    def mark(self) -> Mark:
        """Where the stream stands now, for :meth:`stop_at`."""
        return Mark(self._begun, self.size, self.remaining)

    def stop_at(self, mark: Mark, error: FrameError) -> None:
        """Stop the scan as at a bad frame, where the stream stood before the last chunk: it does not pass after all."""
        self._begun, self.size, self.remaining = mark.begun, mark.size, mark.remaining
        self.stopped = error

    @overload
    def scan(self, data: bytes) -> bytes: ...
    @overload
    def scan(self, data: memoryview) -> bytes | memoryview: ...
    def scan(self, data: bytes | memoryview) -> bytes | memoryview:
        """Look at the next chunk of the stream.

        :param data: of any size; nothing refers to it afterwards but, perhaps, what is returned.
        :return: what may pass now, with what was kept back before; ``data`` itself if that is all of it. Look at
            :attr:`stopped` afterwards: bytes may pass and the scan stop in one call.
        :raises RuntimeError: the scan has stopped already.
        """
        if self.stopped is not None:
            raise RuntimeError("the scan has stopped")
        if self._missing:
            self._collect(data, 0)
            return b""
        if self._held:
            data = self._held + data
            self._held = b""
        parse, verdicts, begun = self._parse, self.verdicts, self._begun
        size = len(data)
        at = self.remaining  # where the next frame begins; beyond the chunk if a body goes on there
        try:
            while at < size:
                header = parse(data, at)
                if header is None:
                    break
                header_size, length = header
                if verdicts is not None and length:
                    body_at = at + header_size
                    if body_at == size:
                        break
                    first = data[body_at]
                    if first < RESERVED_BELOW and _is_collected(first, length, verdicts):
                        self._missing = length
                        self._collect(data, body_at)
                        break
                begun += 1
                at += header_size + length
        except FrameError as error:
            self.stopped = error
        self._begun = begun
        if at >= size:
            self.remaining = at - size
            self.size += size
            return data
        if self.stopped is None and not self._missing:
            self._held = bytes(data[at:])
        self.remaining = 0
        self.size += at
        return data[:at]

    def _collect(self, data: bytes | memoryview, at: int) -> None:
        """Add what stands from ``at`` on to the frame being collected; stop when it is complete."""
        end = at + self._missing
        piece = data[at:end]
        self._collected += piece
        self._missing -= len(piece)
        if not self._missing:
            self.stopped = Control(bytes(self._collected))

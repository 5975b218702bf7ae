"""The kernel's verdicts against those of the scanner in user space."""

from __future__ import annotations

import itertools
import socket
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gameproxy.framing import FORMATS, FrameFormat, FrameScanner, Verdict
from gameproxy.relay.sockmap import SockmapPlane, tcp
from tests.real.sockmap_rig import ODD_FORMATS, Session, session

formats = st.one_of(
    st.sampled_from([*FORMATS.values(), *ODD_FORMATS]),
    st.builds(
        FrameFormat,
        length_offset=st.integers(0, 6),
        length_bytes=st.sampled_from([1, 2, 3, 4, 8, "varint"]),
        byte_order=st.sampled_from(["big", "little"]),
        length_adjustment=st.integers(-9, 0),
        max_frame=st.integers(1, 240),
        varint_bytes=st.integers(1, 10),
    ),
)
verdicts = st.one_of(
    st.none(),
    st.dictionaries(st.integers(0, 15), st.sampled_from(list(Verdict)), max_size=8),
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[FrameFormat, list[bytes]]:
    """A format, and a stream in chunks: frames for the most part, and what may be anything."""
    format = draw(formats)
    body = st.one_of(st.binary(max_size=40), st.just(b"\x10" * 100), st.just(b""))
    parts = draw(
        st.lists(
            st.one_of(
                body.map(
                    lambda body: format.encode(
                        body[: format.largest].ljust(format.smallest, b"\x30")
                    )
                ),
                st.binary(max_size=3) if draw(st.booleans()) else st.just(b""),
            ),
            min_size=1,
            max_size=10,
        )
    )
    stream = b"".join(parts)
    cuts = sorted(draw(st.sets(st.integers(0, len(stream)), max_size=8)) | {0, len(stream)})
    chunks = [stream[start:end] for start, end in itertools.pairwise(cuts)]
    return format, chunks


def received(one: Session, size: int) -> None:
    """Wait until so many bytes have come from the client: what is sent then is a buffer of its own."""
    one.until(lambda: tcp.received(one.to_server.source).size == size)


@given(streams(), verdicts, st.booleans())
@settings(max_examples=200)
def test_as_the_scanner(
    plane: SockmapPlane,
    stream: tuple[FrameFormat, list[bytes]],
    verdicts: dict[int, Verdict] | None,
    resumes: bool,
) -> None:
    """For any format, stream and chunks the kernel sends on just the chunks that the scanner lets pass as they are; and
    with user space helping, all that passes arrives and nothing else, and the end is the scanner's."""
    format, chunks = stream
    model = FrameScanner(format, verdicts)
    sent = by_kernel = 0
    is_ours = False
    with session(plane, format, verdicts, None, resumes=resumes) as one:
        lane = one.to_server
        for chunk in chunks:
            one.client.sendall(chunk)
            sent += len(chunk)
            received(one, sent)
            if model.stopped is not None:
                continue  # of which nothing passes
            held_nothing = model.holds_nothing
            one.expect(one.server, bytes(model.scan(chunk)))
            is_simple = held_nothing and model.holds_nothing
            if is_simple and not is_ours:
                by_kernel += len(chunk)
            if model.stopped is not None:
                one.until(lambda: lane.scanner.stopped)
                continue
            is_ours = not model.holds_nothing or (not resumes and (is_ours or not is_simple))
            one.until(lambda wanted=is_ours: lane.ours is wanted and not lane.unread)
            assert lane.relayed == by_kernel
        assert lane.relayed == by_kernel
        assert (lane.frames, lane.size) == (model.frames, model.size)
        assert repr(lane.scanner.stopped) == repr(model.stopped)
        assert getattr(lane.scanner.stopped, "body", None) == getattr(model.stopped, "body", None)
        with pytest.raises(BlockingIOError):
            one.server.recv(1, socket.MSG_DONTWAIT)


VARINT = FrameFormat(length_bytes="varint", varint_bytes=10)
LONG = FrameFormat(length_bytes=8, byte_order="little")


@pytest.mark.parametrize(
    ("format", "stream"),
    [
        (VARINT, b"\x85" + b"\x80" * 8 + b"\x02" + b"\x10" * 5),  # 2^64 + 5
        (VARINT, b"\x85" + b"\x80" * 8 + b"\x01" + b"\x10" * 5),  # 2^63 + 5
        (VARINT, b"\x85" + b"\x80" * 8 + b"\x00" + b"\x10" * 5),  # 5
        (VARINT, b"\x85" + b"\x80" * 9 + b"\x10" * 5),  # no end
        (replace(LONG, length_adjustment=6), b"\xff" * 8 + b"\x10" * 5),  # 2^64 + 5
        (replace(LONG, length_adjustment=-9), b"\x08" + bytes(7) + b"\x10" * 5),  # -1
        (replace(LONG, length_adjustment=1 << 40, max_frame=1 << 70), b"\xff" * 8 + b"\x10" * 5),
        (replace(LONG, length_adjustment=-(1 << 63)), b"\x05" + bytes(6) + b"\x80" + b"\x10" * 5),
        (replace(LONG, max_frame=1 << 70), b"\x05" + bytes(6) + b"\x80" + b"\x10" * 5),
    ],
)
def test_large_numbers(plane: SockmapPlane, format: FrameFormat, stream: bytes) -> None:
    """Where lengths, or what leads to them, exceed 64 bits, it is as the scanner says too."""
    model = FrameScanner(format, None)
    passed = bytes(model.scan(stream))
    with session(plane, format, None, None) as one:
        one.client.sendall(stream)
        one.expect(one.server, passed)
        if model.stopped is not None:
            one.until(lambda: one.to_server.scanner.stopped)
            assert one.to_server.relayed == 0
        assert repr(one.to_server.scanner.stopped) == repr(model.stopped)
        one.expect_nothing(one.server)

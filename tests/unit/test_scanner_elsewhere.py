"""Streams of which a part passes elsewhere, and the scanner that goes on from there."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.framing import FORMATS, FrameScanner, Verdict

INT32 = FORMATS["int32"]
BODIES = st.lists(st.sampled_from([b"", b"\x10", b"\x10some", b"\x20" * 9]), max_size=8)


class ElsewhereTests(SynchronousTestCase):
    """What :meth:`FrameScanner.skip` does."""

    @given(BODIES, st.integers(0, 99), st.integers(0, 99))
    def test_who_takes_over_counts_the_same(
        self, bodies: list[bytes], first: int, second: int
    ) -> None:
        """A scanner that skips what another has let pass ends as if it had seen all of the stream."""
        stream = b"".join(map(INT32.encode, bodies))
        start, end = sorted((min(first, len(stream)), min(second, len(stream))))
        whole, here, elsewhere = (FrameScanner(INT32, {}) for _ in range(3))
        whole.scan(stream)
        here.scan(stream[:start])
        if not here.holds_nothing:
            self.assertRaises(RuntimeError, here.skip, 0, 0, 0)
            return
        elsewhere.skip(0, 0, here.remaining)
        elsewhere.scan(stream[start:end])
        if not elsewhere.holds_nothing:
            return
        begun = elsewhere.frames + (elsewhere.remaining > 0)
        here.skip(begun, end - start, elsewhere.remaining)
        here.scan(stream[end:])
        self.assertEqual(
            (here.frames, here.size, here.remaining), (whole.frames, whole.size, whole.remaining)
        )

    def test_what_is_held_comes_first(self) -> None:
        """A scanner that holds a header, collects a frame or has stopped cannot take over."""
        for start in (b"\0\0", INT32.encode(b"\x06bye")[:6], INT32.encode(b"\x06"), b"\xff" * 4):
            scanner = FrameScanner(INT32, {0x06: Verdict.COLLECT})
            scanner.scan(start)
            self.assertFalse(scanner.holds_nothing)
            self.assertRaises(RuntimeError, scanner.skip, 1, 5, 0)

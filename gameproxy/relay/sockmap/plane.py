"""The program in the kernel, its maps, and the pairs it has."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import struct
from collections import deque
from contextlib import suppress
from socket import MSG_DONTWAIT, MSG_PEEK
from typing import Final

from gameproxy.framing import FrameFormat
from gameproxy.relay.sockmap import kernel, tcp
from gameproxy.relay.sockmap.image import SHIPPED, Image
from gameproxy.relay.sockmap.layout import NEVER, Record
from gameproxy.relay.sockmap.pair import Lane, Pair, Way
from gameproxy.relay.sockmap.ring import RECORD_SIZE, Ring

BACKLOG_MOST: Final = 1_048_576
"""Bytes that the kernel keeps for a slow reader, besides what TCP buffers, before it gives the lane back."""
PAIRS_MOST: Final = 1 << 20
"""Most pairs that a plane can be made for."""
_PLACE: Final = struct.Struct("=I")
_COOKIE: Final = struct.Struct("=Q")
_DESCRIPTOR: Final = struct.Struct("=Q")


class NotTaken(Exception):
    """A session could not be handed to the kernel now; nothing has changed."""


class SockmapPlane:
    """The program, loaded, with room for pairs.

    Needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON to be made, and no privilege afterwards.

    :param pairs: most pairs at once, 1 to :data:`PAIRS_MOST`.
    :raises OSError: the kernel does not take it.
    """

    def __init__(self, pairs: int) -> None:
        if not 1 <= pairs <= PAIRS_MOST:
            raise ValueError(f"a plane is made for 1 to {PAIRS_MOST} pairs")
        image = Image.decode(SHIPPED.read_bytes())
        places = 2 * pairs
        # Each lane has at most one event waiting: it stops again only when it was resumed, which is after that was
        # taken, or nearly so; a ring that is full anyhow makes the program tell again with the next bytes.
        ring_size = max(mmap.PAGESIZE, 1 << (places * RECORD_SIZE - 1).bit_length())
        sizes = [ring_size if name == "events" else places for name in image.maps]
        maps, programs = kernel.run_loader(image.data, image.instructions, sizes, 1)
        self._descriptors = [*maps, *programs]
        by_name = dict(zip(image.maps, maps, strict=True))
        self._sinks, self._sources = by_name["sinks"], by_name["sources"]
        self._places, self._events = by_name["places"], by_name["events"]
        try:
            kernel.attach_verdict(programs[0], self._sources)
            pages = -(-places * ctypes.sizeof(Record) // mmap.PAGESIZE)
            memory = mmap.mmap(by_name["lanes"], pages * mmap.PAGESIZE)
            self._ring = Ring(self._events, ring_size)
        except OSError:
            self._close_descriptors()
            raise
        self._records = (Record * places).from_buffer(memory)
        # Those that have been free the longest are taken first.
        self._free = deque(range(0, places, 2))
        self._lanes: dict[int, Lane] = {}
        self._pairs: dict[Pair, int] = {}

    def fileno(self) -> int:
        """A descriptor that becomes readable when a lane has stopped: then call :meth:`take_stopped`."""
        return self._events

    def take_stopped(self) -> list[Lane]:
        """The lanes that the kernel has given back since the last call, in order."""
        lanes = [self._lanes[cookie] for cookie in self._ring.take() if cookie in self._lanes]
        return [lane for lane in lanes if lane.look()]

    def add(
        self, format: FrameFormat, client: Way, server: Way, backlog_most: int = BACKLOG_MOST
    ) -> Pair:
        """Let the kernel pass on what comes from either side to the other, from the next byte on.

        Whoever hands over has read both sockets until there was nothing more, and has nothing to write to them.

        :param backlog_most: bytes that the kernel may keep for a sink, besides what TCP buffers.
        :raises NotTaken: there is no room; there is something to be read, or a scanner holds something; or a side has
            ended its stream.
        """
        if not self._free:
            raise NotTaken("the kernel's maps are full")
        for way in (client, server):
            # What has come and was not scanned would not be the scanner's any more.
            if tcp.waiting(way.source):
                raise NotTaken("there is something to be read")
            if not way.scanner.holds_nothing:
                raise NotTaken("the scanner holds something")
        place = self._free[0]
        lanes = self._prepare(format, place, client, server, backlog_most)
        if not all(lane.is_drained() for lane in lanes):
            # A lane that does not know where its sink began would never know when that has taken all.
            raise NotTaken("a peer acknowledges too fast to count what it has got")
        pair = Pair(*lanes, self._remove)
        self._pairs[pair] = self._free.popleft()
        try:
            # All that a verdict needs is there before the first one.
            for offset, lane in enumerate(lanes):
                cookie = tcp.cookie(lane.source)
                descriptor = _DESCRIPTOR.pack(lane.source.fileno())
                self._lanes[cookie] = lane
                kernel.update(self._sinks, _PLACE.pack(place + offset), descriptor)
                kernel.update(self._places, _COOKIE.pack(cookie), _PLACE.pack(place + offset))
        except OSError as error:
            pair.close()
            raise NotTaken(_why_refused(error)) from error
        for offset, lane in enumerate(lanes):
            try:
                kernel.update(
                    self._sources,
                    _PLACE.pack(place + offset),
                    _DESCRIPTOR.pack(lane.source.fileno()),
                )
            except OSError:  # its stream has ended meanwhile, and the other lane may have begun
                lane.not_taken()
        for lane in lanes:
            # What has come before the socket was in the map lies there until somebody wants to read.
            with suppress(OSError):
                lane.source.recv(1, MSG_PEEK | MSG_DONTWAIT)
        return pair

    def close(self) -> None:
        """Let go of all pairs, the maps and the program."""
        for pair in list(self._pairs):
            pair.close()
        self._ring.close()
        self._close_descriptors()

    def _prepare(
        self, format: FrameFormat, place: int, client: Way, server: Way, backlog_most: int
    ) -> tuple[Lane, Lane]:
        lanes = []
        for offset, way, sink in ((0, client, server.source), (1, server, client.source)):
            record = self._records[place + offset]
            ctypes.memset(ctypes.addressof(record), 0, ctypes.sizeof(record))
            record.describe(format, way.scanner.verdicts)
            record.remaining = way.scanner.remaining
            record.sink = place + 1 - offset
            record.backlog_most = backlog_most
            record.resume_at = NEVER
            record.cookie = tcp.cookie(way.source)
            lanes.append(Lane(way, sink, record))
        return lanes[0], lanes[1]

    def _remove(self, pair: Pair) -> None:
        place = self._pairs.pop(pair)
        for offset, lane in enumerate(pair.lanes):
            cookie = lane.cookie
            self._lanes.pop(cookie, None)
            key = _PLACE.pack(place + offset)
            for map, name in (
                (self._sources, key),
                (self._sinks, key),
                (self._places, _COOKIE.pack(cookie)),
            ):
                # A socket that is closed already is in no map any more.
                with suppress(OSError):
                    kernel.delete(map, name)
            lane.let_go()
        self._free.append(place)

    def _close_descriptors(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []


def _why_refused(error: OSError) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return "a side has ended its stream"
    return f"the kernel refuses the socket: {error.strerror}"

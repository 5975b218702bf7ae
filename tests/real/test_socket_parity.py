"""Simulated sockets do what real ones do."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

import pytest

from gameproxy.simulation.sockets import SimSocket
from tests.real.socket_behaviours import SCENES, RealWorld, Seen, SimulatedWorld, World


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_parity(scene: Callable[[World], Seen]) -> None:
    """A scene shows the same on loopback and in the simulation."""
    simulated_world, real_world = SimulatedWorld(), RealWorld()
    try:
        simulated = scene(simulated_world)
        for _ in range(3):  # a loaded machine may be late: what it says in the end counts
            real = scene(real_world)
            if real == simulated:
                break
    finally:
        simulated_world.close()
        real_world.close()
    assert simulated == real


def test_enough_scenes() -> None:
    """None is left out by mistake."""
    assert len(SCENES) >= 40


# Bugs of a simulated kernel. That the scenes are the same on loopback without them, test_parity says.


def a_reset_drops_what_had_come(patch: pytest.MonkeyPatch) -> None:
    fail = SimSocket._fail

    def drops(self: SimSocket, error: int) -> None:
        self._incoming.clear()
        fail(self, error)

    patch.setattr(SimSocket, "_fail", drops)


def a_close_with_unread_data_is_an_end(patch: pytest.MonkeyPatch) -> None:
    close = SimSocket.close

    def forgets(self: SimSocket) -> None:
        self._incoming.clear()
        close(self)

    patch.setattr(SimSocket, "close", forgets)


def never_a_broken_pipe(patch: pytest.MonkeyPatch) -> None:
    as_error = SimSocket._as_error

    def other(self: SimSocket, number: int) -> OSError:
        return as_error(self, errno.ECONNRESET if number == errno.EPIPE else number)

    patch.setattr(SimSocket, "_as_error", other)


def the_window_is_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    pump = SimSocket._pump

    def pumps_on(self: SimSocket) -> None:
        self._in_flight = -(1 << 40)
        pump(self)

    patch.setattr(SimSocket, "_pump", pumps_on)


def an_error_is_told_again(patch: pytest.MonkeyPatch) -> None:
    getsockopt = SimSocket.getsockopt

    def keeps(self: SimSocket, level: int, option: int, size: int = 0) -> int | bytes:
        before = self._error
        result = getsockopt(self, level, option, size)
        self._error = before
        return result

    patch.setattr(SimSocket, "getsockopt", keeps)


def half_a_close_is_a_whole_one(patch: pytest.MonkeyPatch) -> None:
    shutdown = SimSocket.shutdown
    patch.setattr(SimSocket, "shutdown", lambda self, how: shutdown(self, socket.SHUT_RDWR))


def the_end_does_not_wait_for_data(patch: pytest.MonkeyPatch) -> None:
    close = SimSocket.close

    def hurries(self: SimSocket) -> None:
        self._outgoing.clear()
        close(self)

    patch.setattr(SimSocket, "close", hurries)


def a_port_is_given_twice(patch: pytest.MonkeyPatch) -> None:
    bind = SimSocket.bind

    def binds(self: SimSocket, address: tuple[str, int]) -> None:
        self.process.machine._bound.pop(address[1], None)
        bind(self, address)

    patch.setattr(SimSocket, "bind", binds)


BUGS = (
    a_reset_drops_what_had_come,
    a_close_with_unread_data_is_an_end,
    never_a_broken_pipe,
    the_window_is_not_looked_at,
    an_error_is_told_again,
    half_a_close_is_a_whole_one,
    the_end_does_not_wait_for_data,
    a_port_is_given_twice,
)


def played(scene: Callable[[World], Seen]) -> Seen:
    """What a scene shows in the simulation, or how it fails."""
    world = SimulatedWorld()
    try:
        return scene(world)
    except (OSError, AssertionError) as error:
        return [repr(error)]
    finally:
        world.close()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_planted_bug(bug: Callable[[pytest.MonkeyPatch], None]) -> None:
    """A wrong simulated kernel shows in a scene."""
    right = [played(scene) for scene in SCENES]
    with pytest.MonkeyPatch.context() as patch:
        bug(patch)
        wrong = [played(scene) for scene in SCENES]
    assert wrong != right

"""How often passwords may fail: guessing is slow, a slip of the finger is not punished."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Final

from twisted.internet.interfaces import IReactorTime

USER_FAILURES: Final = 5
"""Failures that one user may have from one address at once."""
USER_INTERVAL: Final = 30.0
"""Seconds after which one of these is forgotten."""
ADDRESS_FAILURES: Final = 20
"""Failures that one address may have at once, over all users."""
ADDRESS_INTERVAL: Final = 6.0
"""Seconds after which one of these is forgotten."""
TABLE_SIZE: Final = 10_000
"""Most users, and most addresses, that are remembered; beyond it the one not seen for longest is forgotten."""


class FailureTable:
    """Counts failures by key, and forgets one of each key in every ``interval`` (a leaky bucket for each).

    :param burst: failures that a key may have at once.
    :param interval: seconds after which one failure is forgotten.
    :param size: most keys to remember; beyond it the one that was counted longest ago is forgotten.
    """

    def __init__(self, clock: IReactorTime, burst: int, interval: float, size: int) -> None:
        self._clock = clock
        self._burst = burst
        self._interval = interval
        self._size = size
        self._counted: dict[str, tuple[float, float]] = {}
        """By key: how many failures there were, and when that was so. In the order of the last count."""

    def wait(self, key: str) -> float:
        """Seconds until one more failure is allowed; 0.0 when it is now."""
        return max(0.0, self._failures(key) + 1 - self._burst) * self._interval

    def count(self, key: str) -> None:
        """One more failure."""
        failures = self._failures(key) + 1
        self._counted.pop(key, None)
        while len(self._counted) >= self._size:
            del self._counted[next(iter(self._counted))]
        self._counted[key] = (failures, self._clock.seconds())

    def take_back(self, key: str) -> None:
        """One failure less: it was counted in advance, and was none."""
        if key in self._counted:
            failures, at = self._counted[key]
            self._counted[key] = (failures - 1, at)

    def _failures(self, key: str) -> float:
        """Failures not yet forgotten. When the clock was set back, that counts as time, too: nobody waits for years."""
        now = self._clock.seconds()
        failures, at = self._counted.get(key, (0.0, now))
        return max(0.0, failures - abs(now - at) / self._interval)


class PasswordFailures:
    """Limits failures per user and address, and per address. Of an IPv6 address only the first 64 bits count."""

    def __init__(self, clock: IReactorTime) -> None:
        self._users = FailureTable(clock, USER_FAILURES, USER_INTERVAL, TABLE_SIZE)
        self._addresses = FailureTable(clock, ADDRESS_FAILURES, ADDRESS_INTERVAL, TABLE_SIZE)

    def begin(self, user: str, address: str) -> float:
        """Ask for an attempt. It counts as failed until taken back, so that many at once are no way around.

        :param user: the name, normalised.
        :param address: the client's IP.
        :return: 0.0; or the seconds to wait, and nothing is counted.
        """
        network = _network(address)
        wait = max(self._users.wait(f"{network} {user}"), self._addresses.wait(network))
        if wait == 0.0:
            self._users.count(f"{network} {user}")
            self._addresses.count(network)
        return wait

    def take_back(self, user: str, address: str) -> None:
        """The attempt succeeded, or nothing was found out by it."""
        network = _network(address)
        self._users.take_back(f"{network} {user}")
        self._addresses.take_back(network)


def _network(address: str) -> str:
    try:
        ip = ip_address(address)
    except ValueError:
        return address  # not an IP: a UNIX socket, or a simulated network
    if isinstance(ip, IPv6Address):
        return str(IPv6Address(int(ip) >> 64 << 64))
    return address

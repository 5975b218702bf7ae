"""gameproxy.address_limits, gameproxy.limit_counts and what admission makes of them"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.address_limits import AFTER_DOUBT, DOUBTED, AddressLimits, prefix_of
from gameproxy.admission import REFUSED_MAX, Admission
from gameproxy.config import LimitConfig, LimitsConfig, SessionsLimitConfig
from gameproxy.interfaces import Peer
from gameproxy.limit_counts import LimitCounts
from gameproxy.reasons import CloseReason, Refusal
from gameproxy.testing import MemoryClient, MemorySurroundings

FEW = LimitsConfig(connections_per_second=LimitConfig(mode="enforce", rate=0.5, burst=2.0))
TWO = LimitsConfig(sessions_per_address=SessionsLimitConfig(mode="enforce", rate=2.0))


class LimitedCase(SynchronousTestCase):
    """Clients that come to a proxy with limits."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.around = MemorySurroundings()

    def admission(self, section: LimitsConfig, max_sessions: int = 1000) -> Admission:
        """A proxy that has these limits."""
        self.counts = LimitCounts(section.modes)
        addresses = AddressLimits(section, self.clock, self.counts)
        return Admission(max_sessions, 1000, addresses)

    def client(self, address: str) -> MemoryClient:
        """A client that connects from there."""
        return self.around.connect(Peer(address, 4000, False))

    def enter(self, admission: Admission, address: str) -> Refusal | None:
        """One more comes."""
        return admission.enter(self.client(address).session)

    def refuses(self, admission: Admission, address: str, reason: CloseReason) -> Refusal:
        """One more is refused."""
        refusal = self.enter(admission, address)
        assert refusal is not None
        self.assertEqual(refusal.reason, reason)
        return refusal


class ConnectionsTests(LimitedCase):
    """[limits.connections_per_second]"""

    def test_throttled(self) -> None:
        """Who comes too often is told so, and when to come again; then he is let in."""
        admission = self.admission(FEW)
        for _ in range(2):
            self.assertIsNone(self.enter(admission, "192.0.2.1"))
        refusal = self.refuses(admission, "192.0.2.1", CloseReason.THROTTLED)
        self.assertEqual(refusal.retry_after, 2.0)
        self.clock.advance(2.0)
        self.assertIsNone(self.enter(admission, "192.0.2.1"))
        self.assertEqual(self.counts.sessions["connections_per_second"], 1)

    def test_by_prefix(self) -> None:
        """A /24 and a /64 count together, and all else apart."""
        admission = self.admission(FEW)
        for first, second, other in (
            ("192.0.2.1", "192.0.2.255", "192.0.3.1"),
            ("2001:db8::1", "2001:db8::ffff:1:2:3", "2001:db8:0:1::1"),
        ):
            self.assertIsNone(self.enter(admission, first))
            self.assertIsNone(self.enter(admission, second))
            self.refuses(admission, first, CloseReason.THROTTLED)
            self.assertIsNone(self.enter(admission, other))

    @given(st.ip_addresses(), st.ip_addresses())
    def test_prefixes(
        self, one: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address
    ) -> None:
        """Two addresses belong together when their first 24 bits, or 64, are the same, and they are of one kind."""
        together = one.version == other.version and (
            one.packed[: 3 if one.version == 4 else 8]
            == other.packed[: 3 if one.version == 4 else 8]
        )
        self.assertEqual(prefix_of(str(one)) == prefix_of(str(other)), together)

    def test_no_address(self) -> None:
        """What has no address, as a UNIX socket has none, is not limited: it would all count as one."""
        section = FEW.model_copy(update={"sessions_per_address": TWO.sessions_per_address})
        admission = self.admission(section)
        for _ in range(10):
            self.assertIsNone(self.enter(admission, ""))

    def test_dry_run(self) -> None:
        """In dry_run all are let in, and it is counted who would not have been."""
        limit = FEW.connections_per_second.model_copy(update={"mode": "dry_run"})
        admission = self.admission(LimitsConfig(connections_per_second=limit))
        for _ in range(5):
            self.assertIsNone(self.enter(admission, "192.0.2.1"))
        numbers = admission.limits()
        self.assertEqual(numbers["connections_per_second_dry_run_sessions"], 3)
        self.assertEqual(numbers["connections_per_second_dry_run_units"], 3)

    def test_a_full_proxy_comes_first(self) -> None:
        """A proxy that is full says that, with when to come again; to be turned away for it is held against nobody."""
        admission = self.admission(FEW, max_sessions=1)
        kept = self.client("192.0.2.1").session
        self.assertIsNone(admission.enter(kept))
        for _ in range(5):
            refusal = self.refuses(admission, "192.0.2.1", CloseReason.PROXY_FULL)
            self.assertEqual(refusal.retry_after, 5.0)
        admission.leave(kept.id)
        self.assertIsNone(self.enter(admission, "192.0.2.1"))

    def test_too_many_to_be_told(self) -> None:
        """When very many are being turned away, the next are not told why."""
        admission = self.admission(FEW)
        for _ in range(2):
            self.assertIsNone(self.enter(admission, "192.0.2.1"))
        for _ in range(REFUSED_MAX):
            self.refuses(admission, "192.0.2.1", CloseReason.THROTTLED)
            self.assertTrue(admission.can_tell)
        last = self.client("192.0.2.1").session
        self.assertIsNotNone(admission.enter(last))
        self.assertFalse(admission.can_tell)
        admission.leave(last.id)
        self.assertTrue(admission.can_tell)


class SessionsTests(LimitedCase):
    """[limits.sessions_per_address]"""

    def test_limit_exceeded(self) -> None:
        """An address has so many sessions and no more, until one of them is over; other addresses have theirs."""
        admission = self.admission(TWO)
        sessions = [self.client("192.0.2.1").session for _ in range(2)]
        for session in sessions:
            self.assertIsNone(admission.enter(session))
        for _ in range(3):
            refusal = self.refuses(admission, "192.0.2.1", CloseReason.LIMIT_EXCEEDED)
            self.assertIn("2 sessions of one address", refusal.message)
        self.assertIsNone(self.enter(admission, "192.0.2.2"))
        admission.leave(sessions[0].id)
        self.assertIsNone(self.enter(admission, "192.0.2.1"))
        self.refuses(admission, "192.0.2.1", CloseReason.LIMIT_EXCEEDED)

    def test_who_is_refused_takes_no_place(self) -> None:
        """A session that was refused, and is over, makes no room: it had none."""
        admission = self.admission(TWO)
        for _ in range(2):
            self.assertIsNone(self.enter(admission, "192.0.2.1"))
        refused = self.client("192.0.2.1").session
        self.assertIsNotNone(admission.enter(refused))
        admission.leave(refused.id)
        self.refuses(admission, "192.0.2.1", CloseReason.LIMIT_EXCEEDED)

    def test_nothing_is_kept(self) -> None:
        """Of addresses without sessions nothing is left."""
        admission = self.admission(TWO)
        for number in range(100):
            session = self.client(f"192.0.2.{number}").session
            admission.enter(session)
            admission.leave(session.id)
        assert admission._addresses is not None
        self.assertEqual(admission._addresses._sessions, {})

    def test_ghost_sessions_that_block_a_re_login(self) -> None:
        """Who is turned away because of sessions whose clients may be gone has these looked for, and is told to come
        again when they will be: a few at a time, and each in its turn."""
        count = DOUBTED + 4
        limit = SessionsLimitConfig(mode="enforce", rate=float(count))
        admission = self.admission(LimitsConfig(sessions_per_address=limit))
        clients = [self.client("192.0.2.1") for _ in range(count)]
        for client in clients:
            self.assertIsNone(admission.enter(client.session))
        refusal = self.refuses(admission, "192.0.2.1", CloseReason.LIMIT_EXCEEDED)
        self.assertEqual(refusal.retry_after, AFTER_DOUBT)
        self.assertEqual([client.probes for client in clients], [1] * DOUBTED + [0] * 4)
        self.refuses(admission, "192.0.2.1", CloseReason.LIMIT_EXCEEDED)
        self.assertEqual(sum(client.probes for client in clients[DOUBTED:]), 4)

    def test_dry_run(self) -> None:
        """In dry_run all are let in, and nobody is doubted."""
        limit = SessionsLimitConfig(mode="dry_run", rate=1.0)
        admission = self.admission(LimitsConfig(sessions_per_address=limit))
        clients = [self.client("192.0.2.1") for _ in range(3)]
        for client in clients:
            self.assertIsNone(admission.enter(client.session))
        self.assertEqual(admission.limits()["sessions_per_address_dry_run_sessions"], 2)
        self.assertEqual([client.probes for client in clients], [0, 0, 0])


class ChangedTests(LimitedCase):
    """Limits that change while there are sessions"""

    def addresses(self, section: LimitsConfig) -> AddressLimits:
        return AddressLimits(section, self.clock, LimitCounts(section.modes))

    def test_debts(self) -> None:
        """Who has come too often is not forgiven because something else, or only the mode, has changed; he is when the
        rate has. Turned off and on, it begins anew."""
        few = FEW.connections_per_second
        addresses = self.addresses(FEW)
        for _ in range(2):
            self.assertIsNone(addresses.refusal("192.0.2.1"))
        self.assertIsNotNone(addresses.refusal("192.0.2.1"))
        dry = few.model_copy(update={"mode": "dry_run"})
        for limit, refused in (
            (few, True),
            (dry, False),
            (few, True),
            (few.model_copy(update={"rate": 0.25}), False),
            (LimitConfig(), False),
            (few, False),
        ):
            section = LimitsConfig(connections_per_second=limit)
            addresses.counts.reconfigure(section.modes)
            addresses.reconfigure(section, ())
            self.assertEqual(addresses.refusal("192.0.2.1") is not None, refused, limit)

    def test_sessions(self) -> None:
        """Sessions that came when there was no limit count, and leave it again; those of a limit that is gone are not
        kept."""
        admission = self.admission(LimitsConfig())
        addresses = admission._addresses
        assert addresses is not None
        here = [self.client("192.0.2.1").session for _ in range(2)]
        for session in here:
            self.assertIsNone(admission.enter(session))
        self.counts.reconfigure(TWO.modes)
        addresses.reconfigure(TWO, admission.let_in())
        self.refuses(admission, "192.0.2.1", CloseReason.LIMIT_EXCEEDED)
        addresses.reconfigure(TWO, admission.let_in())
        self.assertEqual(len(admission), 3)
        admission.leave(here[0].id)
        self.assertIsNone(self.enter(admission, "192.0.2.1"))
        addresses.reconfigure(LimitsConfig(), admission.let_in())
        self.assertEqual(addresses._sessions, {})
        admission.leave(here[1].id)

    def test_bounds(self) -> None:
        """With fewer places than sessions those stay, and no other comes until there is room."""
        admission = self.admission(LimitsConfig())
        here = [self.client("192.0.2.1").session for _ in range(3)]
        for session in here:
            self.assertIsNone(admission.enter(session))
        admission.reconfigure(2, 1000)
        self.refuses(admission, "192.0.2.2", CloseReason.PROXY_FULL)
        for session in here[:2]:
            admission.leave(session.id)
        self.assertIsNone(self.enter(admission, "192.0.2.2"))
        admission.reconfigure(1000, 1)
        self.refuses(admission, "192.0.2.2", CloseReason.PROXY_FULL)

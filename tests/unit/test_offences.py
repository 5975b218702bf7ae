"""gameproxy.offences"""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.config import LimitsConfig
from gameproxy.offences import TABLE_SIZE, Offences, Sentence

ADDRESS = "192.0.2.1"


class OffencesTests(SynchronousTestCase):
    """gameproxy.offences.Offences"""

    def setUp(self) -> None:
        self.clock = Clock()

    def offences(self, after: int = 2) -> Offences:
        """With bans of a minute, then four times as long each time, up to an hour."""
        section = LimitsConfig(ban_after=after, ban_for=60.0, ban_factor=4.0, ban_most=3600.0)
        return Offences(section, self.clock)

    def test_off(self) -> None:
        """Nobody is banned unless that is configured, and nobody is remembered."""
        offences = Offences(LimitsConfig(), self.clock)
        for _ in range(100):
            self.assertIsNone(offences.committed("ann", ADDRESS))
        self.assertEqual(len(offences), 0)

    def test_growing(self) -> None:
        """After so many offences comes a ban, after as many more a longer one, and none is longer than the longest."""
        offences = self.offences()
        bans = []
        for _ in range(10):
            self.assertIsNone(offences.committed("ann", ADDRESS))
            sentence = offences.committed("ann", ADDRESS)
            assert sentence is not None
            self.assertEqual((sentence.kind, sentence.subject), ("player", "ann"))
            bans.append(sentence.seconds)
        self.assertEqual(bans, [60.0, 240.0, 960.0, *[3600.0] * 7])

    def test_guests(self) -> None:
        """Of a guest the address is banned: his name is anybody's. Without an address nobody is."""
        offences = self.offences(after=1)
        sentence = offences.committed("guest:ann", ADDRESS)
        self.assertEqual(sentence, Sentence("address", ADDRESS, 60.0))
        self.assertIsNone(offences.committed("guest:ann", ""))

    def test_each_for_himself(self) -> None:
        """Offences of others are held against nobody."""
        offences = self.offences()
        for player in ("ann", "ben", "guest:ann"):
            self.assertIsNone(offences.committed(player, ADDRESS))

    def test_forgotten(self) -> None:
        """Who does nothing for the longest time of a ban begins anew; a ban itself does not count as such time."""
        offences = self.offences()
        offences.committed("ann", ADDRESS)
        self.clock.advance(3601.0)
        self.assertIsNone(offences.committed("ann", ADDRESS))
        sentence = offences.committed("ann", ADDRESS)
        self.assertEqual(sentence, Sentence("player", "ann", 60.0))
        self.clock.advance(60.0 + 3599.0)
        offences.committed("ann", ADDRESS)
        sentence = offences.committed("ann", ADDRESS)
        self.assertEqual(sentence, Sentence("player", "ann", 240.0))

    def test_bounded(self) -> None:
        """However many offend, the table does not grow: who did so longest ago is forgotten."""
        offences = self.offences()
        for number in range(TABLE_SIZE + 10):
            offences.committed(f"player{number}", ADDRESS)
        self.assertEqual(len(offences), TABLE_SIZE)
        self.assertIsNotNone(offences.committed(f"player{TABLE_SIZE}", ADDRESS))
        self.assertIsNone(offences.committed("player0", ADDRESS))

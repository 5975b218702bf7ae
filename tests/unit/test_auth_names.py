"""gameproxy.auth.names"""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.auth.names import BadName, normalise_name


class NamesTests(SynchronousTestCase):
    """Which names players may have."""

    def test_nfc(self) -> None:
        """A name comes back in NFC, so that both ways to write it are one player."""
        self.assertEqual(normalise_name("Zoe\u0308"), "Zo\u00eb")

    def test_length_counts_after_nfc(self) -> None:
        """64 characters after NFC are a name; none and 65 are not."""
        self.assertEqual(len(normalise_name("e\u0308" * 64)), 64)
        for name in ("", "a" * 65):
            self.assertRaises(BadName, normalise_name, name)

    def test_refused_characters(self) -> None:
        """Control, format (bidi and zero-width included) and surrogate characters make no name."""
        for character in "\0\n\x1b\x7f\x85\u200b\u200d\u202e\u2066\ufeff\u00ad\ud800\udfff":
            with self.subTest(hex(ord(character))):
                self.assertRaises(BadName, normalise_name, f"a{character}b")

    def test_other_scripts(self) -> None:
        """Letters, marks, digits, spaces, symbols and unassigned characters of any script are welcome."""
        for name in ("陽子", "Ünal 3", "🎮", "a:b", "\u0378"):
            self.assertEqual(normalise_name(name), name)

    @given(st.text(alphabet=st.characters(), max_size=80))
    def test_any_text(self, text: str) -> None:
        """Any text is refused with BadName, or gives a name that fits, is NFC and stays as it is."""
        try:
            name = normalise_name(text)
        except BadName:
            return
        self.assertTrue(1 <= len(name) <= 64)
        self.assertTrue(unicodedata.is_normalized("NFC", name))
        self.assertEqual(normalise_name(name), name)
        self.assertEqual(name.encode().decode(), name)

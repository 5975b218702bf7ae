"""What operators' tables look like where there is little room."""

from __future__ import annotations

from io import StringIO

from rich.console import Console
from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli.reporting import table


class TableTests(SynchronousTestCase):
    def test_ids_stay_whole(self) -> None:
        """An id can be typed again, however narrow the terminal is; what has no room beside it is folded, not cut."""
        made = table(
            ("id", "state", "words"), [("quiz-0123456789ab", "ready", "all of these words stay")]
        )
        output = StringIO()
        Console(file=output, width=36).print(made)
        shown = output.getvalue()
        self.assertIn("quiz-0123456789ab", shown)
        self.assertNotIn("…", shown)
        for word in ("all", "of", "these", "words", "stay"):
            self.assertIn(word, shown)

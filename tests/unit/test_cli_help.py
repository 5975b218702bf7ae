"""The help pages of all commands, and the scripts for completion."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from gameproxy.cli import command_line
from tests.commands import run

WIDTH = 80


def pages(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from pages(command)


class HelpTests(SynchronousTestCase):
    """What ``--help`` answers."""

    def setUp(self) -> None:
        patch = mock.patch.dict(os.environ, {"COLUMNS": str(WIDTH)})
        patch.start()
        self.addCleanup(patch.stop)

    def test_all_pages(self) -> None:
        """Each says what the command does, what each argument and option is, and fits the terminal."""
        found = list(pages(command_line()))
        self.assertGreater(len(found), 15)
        for parser in found:
            text = parser.format_help()
            with self.subTest(parser.prog):
                self.assertTrue(parser.description)
                self.assertLessEqual(max(map(len, text.splitlines())), WIDTH)
                for action in parser._actions:
                    if not isinstance(action, argparse._SubParsersAction):
                        self.assertTrue(action.help, action)

    def test_the_first_page(self) -> None:
        """It names all commands, what to begin with, and what the exit statuses mean."""
        status, text, errors = run("--help")
        self.assertEqual((status, errors), (0, ""))
        for part in ("farm", "completion", "twist gameproxy --config", "2 wrong usage"):
            self.assertIn(part, text)

    def test_prose_and_examples(self) -> None:
        """Prose is wrapped, and examples stand on lines of their own."""
        _, text, _ = run("ban", "--help")
        self.assertIn("\n  gameproxy ban ada\n", text)
        self.assertIn("\n\nExit status: 0 done", text)

    def test_scripts(self) -> None:
        """Each shell that is named gets a script; another is wrong usage."""
        for shell in ("bash", "zsh"):
            status, script, errors = run("completion", shell)
            self.assertEqual((status, errors), (0, ""))
            self.assertIn("--private-key", script)
        self.assertEqual(run("completion", "sh")[0], 2)

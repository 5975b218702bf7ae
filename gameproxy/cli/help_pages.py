"""How the help pages look: prose is wrapped to the terminal, examples stay as they are."""

from __future__ import annotations

import argparse
from typing import Any


class CommandParser(argparse.ArgumentParser):
    """A parser whose help is written by :class:`HelpFormatter`, and that of its commands too."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **settings})


class HelpFormatter(argparse.HelpFormatter):
    """Wraps each line of a description or an epilog by itself, but none that is indented."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            line
            if line.startswith(" ")
            else super(HelpFormatter, self)._fill_text(line, width, indent)
            for line in text.split("\n")
        )


def ending(*examples: str, status: str = "0 done, 1 failed, 2 wrong usage") -> str:
    """The end of a command's page.

    :param examples: lines for a shell.
    :param status: what each exit status means.
    """
    lines = "".join(f"  {example}\n" for example in examples)
    return f"Examples:\n{lines}\nExit status: {status}."

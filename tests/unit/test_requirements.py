"""What setup.cfg asks for, and the oldest releases of it that are tested."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).parents[2]


class RequirementsTests(SynchronousTestCase):
    """``make test-oldest`` tests the lower bounds, and all of them."""

    def test_oldest(self) -> None:
        """Each bound of the program and of the arena has the release that begins with it in tests/oldest.txt."""
        setup = ConfigParser()
        setup.read(ROOT / "setup.cfg")
        extras = setup["options.extras_require"]
        required = (setup["options"]["install_requires"] + extras["arena"]).split("\n")
        bounds = {}
        for line in filter(None, required):
            found = re.fullmatch(r"([\w.-]+)(\[\w+\])? >= ([\d.]+)", line)
            assert found is not None, f"{line!r} has no lower bound"
            bounds[found[1]] = found[3]
        text = (ROOT / "tests" / "oldest.txt").read_text()
        pinned = dict(re.findall(r"(?m)^([\w.-]+)==(.+)$", text))
        self.assertEqual(pinned.keys(), bounds.keys())
        for name, bound in bounds.items():
            self.assertTrue(f"{pinned[name]}.".startswith(f"{bound}."), name)

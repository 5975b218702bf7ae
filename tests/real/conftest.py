"""Lets pytest explain the assertions of the rig as it does those of tests."""

import pytest

pytest.register_assert_rewrite("tests.real.relay_peers", "tests.real.rig", "tests.real.streams")

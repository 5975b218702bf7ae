"""What the tests with real sockets share."""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gameproxy.relay.sockmap import SockmapPlane, load, why_not

# Lets pytest explain the assertions of the rigs as it does those of tests.
pytest.register_assert_rewrite(
    "tests.real.relay_peers",
    "tests.real.rig",
    "tests.real.sockmap_rig",
    "tests.real.streams",
    "tests.real.tls_scene",
)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of this test's own, whose path is so short that the paths of UNIX sockets in it are not too long, in
    however many processes and under whatever name the tests run."""
    # What a test has killed may end, and write, a moment later.
    with TemporaryDirectory(prefix="gp-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def plane() -> Iterator[SockmapPlane]:
    """The relay in the kernel, with little room. Skips, and says why, where there can be none."""
    why = why_not()
    if why is not None:
        pytest.skip(f"not on this machine: {why}")
    plane = load(4)
    yield plane
    plane.close()

"""Makes the file that is shipped (``make bpf``)."""

from __future__ import annotations

import sys
from pathlib import Path

from gameproxy.relay.sockmap.image import SOURCE, Image


def main(skeleton: str, built: str) -> None:
    """Make it.

    :param skeleton: the file that ``bpftool gen skeleton -L`` has written.
    :param built: where to write.
    """
    image = Image.of_skeleton(Path(skeleton).read_text("ascii"), SOURCE.read_bytes())
    Path(built).write_bytes(image.encode())


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The built program as it is shipped (``make bpf``): a loader that the kernel runs, and the data that this works on.

``bpftool gen skeleton -L`` (the "light skeleton") makes of an object file a small BPF program, which creates the maps
and loads the programs by itself, with all that is to be adjusted to the running kernel adjusted by the kernel. It comes
as a C header with two strings; here they are in a file of their own, behind a line of JSON that describes them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
SOURCE: Final = FOLDER / "relay.bpf.c"
SHIPPED: Final = FOLDER / "relay.bpf.loader"


@dataclass(frozen=True, slots=True)
class Image:
    """A built program.

    :param maps: the names of its maps, in the loader's order.
    :param programs: the names of its programs, likewise.
    :param source: SHA-256 of the source that it was built from, in hexadecimal.
    :param data: what the loader works on.
    :param instructions: the loader.
    """

    maps: tuple[str, ...]
    programs: tuple[str, ...]
    source: str
    data: bytes
    instructions: bytes

    @classmethod
    def of_skeleton(cls, skeleton: str, source: bytes) -> Image:
        """The program in a header that bpftool has written.

        :param source: of the program.
        :raises ValueError: it does not look like one.
        """
        return cls(
            tuple(re.findall(r"struct bpf_map_desc (\w+);", skeleton)),
            tuple(re.findall(r"struct bpf_prog_desc (\w+);", skeleton)),
            sha256(source).hexdigest(),
            _string("data", skeleton),
            _string("insns", skeleton),
        )

    @classmethod
    def decode(cls, file: bytes) -> Image:
        """The program in a shipped file."""
        line, _, rest = file.partition(b"\n")
        head = json.loads(line)
        return cls(
            tuple(head["maps"]),
            tuple(head["programs"]),
            head["source"],
            rest[: head["data"]],
            rest[head["data"] :],
        )

    def encode(self) -> bytes:
        """A file to be shipped."""
        head = {
            "maps": self.maps,
            "programs": self.programs,
            "source": self.source,
            "data": len(self.data),
        }
        return json.dumps(head).encode() + b"\n" + self.data + self.instructions


def _string(name: str, skeleton: str) -> bytes:
    size = re.search(rf"opts\.{name}_sz = (\d+);", skeleton)
    text = re.search(rf'opts\.{name} = \(void \*\)"(.*?)";', skeleton, re.DOTALL)
    if size is None or text is None:
        raise ValueError(f"the skeleton has no {name}")
    escaped = text[1].replace("\\\n", "")
    found = bytes(
        int(digits or "0", 16) for digits in re.findall(r"\\(?:x([0-9a-f]{2})|0)", escaped)
    )
    if len(found) != int(size[1]):
        raise ValueError(f"the skeleton has {len(found)} bytes of {name}, not {size[1]}")
    return found

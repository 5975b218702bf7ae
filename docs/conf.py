"""How Sphinx builds these pages: ``make docs``."""

from importlib.metadata import version as version_of

project = "gameproxy"
author = "the gameproxy authors"
version = release = version_of("gameproxy")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = f"gameproxy {release}"

myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True

nitpicky = True
nitpick_ignore_regex = [
    # Other projects' documentation: their indexes would have to be fetched for each build.
    (
        r"py:.*",
        r"(twisted|zope|pydantic|pydantic_core|jwt|cryptography|collections|sqlite3|pathlib|enum|typing|asyncio)\..*|logging",
    ),
    # The same by their short names, as annotations and ":raises" have them.
    (
        r"py:(class|exc)",
        r"(Callable|Mapping|Sequence|Iterable|Iterator|Path|Deferred|Failure|Portal|Service|Protocol|ABC|Enum|StrEnum"
        r"|IntEnum|BaseModel|T|bytes|memoryview|I[A-Z]\w+|UnauthorizedLogin|CannotListenError)",
    ),
    # Annotations that Sphinx cuts in pieces or cannot read: a tuple of any length, and zope's interfaces.
    (r"py:class", r"tuple\[str|.*<InterfaceClass .*"),
    # Modules and names of ours that are no public API, in words for those who read the source.
    (
        r"py:.*",
        r"gameproxy\.(admission|auth|farm|session|client_side|server_side|relay|metrics|wire|loops\.T)(\..*)?",
    ),
    (
        r"py:.*",
        r"(gameproxy\.gameserver\.(game\.Line|timetable\.Appointment)|Attempt|admitted|refusal"
        r"|gameproxy\.simulation\.(stage\.T|handles\.ProxyHandle|states\.State))",
    ),
]

"""``python -m gameproxy`` is the command ``gameproxy``."""

import sys

from gameproxy.cli import main

sys.exit(main())

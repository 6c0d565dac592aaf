"""`python -m mergec`."""

import sys

from .cli.main import process

sys.exit(process())

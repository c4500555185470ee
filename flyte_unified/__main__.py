"""``python -m flyte_unified``: the command line, for an interpreter whose scripts are not on the path."""

import sys

from flyte_unified.cli import main

sys.exit(main())

"""`python -m brolga_tune`."""

import sys

from .cli import main

sys.exit(main())

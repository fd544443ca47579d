"""`python -m zoo`: the program `zoo` of this very interpreter."""

import sys

from zoo.cli.app import main

sys.exit(main())

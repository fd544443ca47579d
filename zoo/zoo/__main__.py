"""`python -m zoo`: the program `zoo` of this very interpreter."""

import sys

from zoo.commands.app import main

sys.exit(main())

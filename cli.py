"""Run privfed from a checkout: ``python cli.py run --method fedavg``."""

import sys

from privfed.cli import main

sys.exit(main())

"""The module for ``python -m armvirt``, which does the same as the command ``armvirt``."""

import sys

from armvirt.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

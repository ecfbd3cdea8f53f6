"""The command line: `python -m larq_filters --help`."""

import sys

from larq_filters_command import main

if __name__ == "__main__":
    sys.exit(main(prog="python -m larq_filters"))

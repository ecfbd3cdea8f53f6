"""The command line: `python -m larq_filters --help`."""

import argparse
import sys
from collections.abc import Sequence

from larq_filters._commands import explain, export


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one of the commands; returns its exit code: 0 done, 1 refused, 2 wrong arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m larq_filters", description="Binary neural networks without latent weights."
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    explain.add_parser(commands)
    export.add_parser(commands)
    parsed = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # Greek letters on a terminal that has none
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    return parsed.run(parsed)


if __name__ == "__main__":
    sys.exit(main())

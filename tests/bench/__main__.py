"""`python -m tests.bench [--runs N] [--json FILE]`: measure, and print medians and spreads."""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

from tests.bench.measure import table
from tests.bench.startup import measure_startup


def main() -> None:
    """Parse the options, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=15, help="counted runs of each measurement (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    options = parser.parse_args()
    series = measure_startup(options.runs)
    print(f"Python {platform.python_version()}, {platform.system()} {platform.release()}, {platform.machine()}")
    print(table(series))
    if options.json is not None:
        options.json.write_text(json.dumps([each.as_json() for each in series], indent=2) + "\n")


main()

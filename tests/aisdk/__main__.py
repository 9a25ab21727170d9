"""Run the cases: python -m tests.aisdk [--major 7|6] [words of the names of cases]"""

import argparse
import sys

from tests.aisdk.playing import MAJORS, missing, play
from tests.aisdk.stage import Stage


def main() -> int:
    """Run them against one demo; the exit code is how many failed."""
    parser = argparse.ArgumentParser(description="The AI SDK's own client against the running demo.")
    parser.add_argument("--major", choices=MAJORS, action="append", help="a major of the AI SDK (default: both)")
    parser.add_argument("--log", action="store_true", help="print what the demo has said")
    parser.add_argument("names", nargs="*", help="only cases with one of these words in their name")
    options = parser.parse_args()
    if problem := missing():
        sys.exit(problem)
    with Stage() as stage:
        try:
            return sum(play(stage, major, *options.names) for major in options.major or MAJORS)
        finally:
            if options.log:
                print(stage.demo.output)


if __name__ == "__main__":
    sys.exit(main())

"""Iterations and evaluations of chains by many methods, a table for each case.

    python -m benchmarks.rounds --data german.data-numeric
    python -m benchmarks.rounds --only mixture_of_four

Counts are exact and do not depend on the machine's speed. Every row is compared with the sequential loop, and stands
beside the published method run here and the published figure.
"""

import argparse
from pathlib import Path

from benchmarks.rounds import embeddings, german_credit, mixture_of_four

CASES = {"german_credit": german_credit, "mixture_of_four": mixture_of_four, "embeddings": embeddings}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--data", type=Path, help="the UCI file german.data-numeric, which german_credit needs")
    options = parser.parse_args()
    for name in options.only:
        if name == "german_credit" and options.data is None:
            print("german_credit is left out: it needs --data")
            continue
        CASES[name].write(options.data)


if __name__ == "__main__":
    main()

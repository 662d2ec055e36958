"""One prefill for N candidates: time to all first tokens, against N prefills of the same length, in one run.

python benchmarks/fanout.py [--model DIR] [--rows 16] [--prompt 1024]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from common import NANO, complete, engine_on, median, prompt_of, report, request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO, help="folder of a ZAYA1 checkpoint (default: nano)")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    engine = engine_on(args.model)

    def seconds(firsts: list[int]) -> float:
        """Until every row has its first token; rows whose prompts begin alike share the prefill."""
        requests = [request(str(i), prompt_of(args.prompt, first), 1, seed=i) for i, first in enumerate(firsts)]
        started = time.perf_counter()
        complete(engine, requests)
        return time.perf_counter() - started

    shared, separate = [], []
    for turn in range(args.rounds + 1):
        one, many = seconds([7] * args.rows), seconds(list(range(7, 7 + args.rows)))
        if turn > 0:
            shared.append(one)
            separate.append(many)
    engine.close()
    ratio = median([many / one for one, many in zip(shared, separate, strict=True)])
    row = {"N": args.rows, "prompt": args.prompt, "one prefill s": median(shared), "N prefills s": median(separate)}
    report("fanout", [{**row, "ratio": ratio}], model=args.model.name)


if __name__ == "__main__":
    main()

"""A benchmark of one's own, measured with the built-in model: python examples/my_benchmark.py [FOLDER]"""

import sys

import anyio

from evals import Benchmark, Question, evaluate

PUZZLES = {24: [3, 7, 5, 2], 36: [9, 8, 4, 4], 17: [10, 4, 3]}

mine = Benchmark(
    name="my-puzzles",
    metric="countdown",
    questions=[
        Question(id=f"make-{target}", problem=f"Make {target} from the numbers {numbers}.", gold=gold)
        for target, numbers in PUZZLES.items()
        for gold in [{"numbers": numbers, "target": target}]
    ],
)


async def main(out: str) -> None:
    for method, t in (("single", 0), ("rsa", 1)):
        results = await evaluate(mine, "nano", method, out=f"{out}/{method}", progress=True, n=4, t=t, beta=96, tau=64)
        right = {problem.id: problem.value for problem in results.problems}
        print(f"{method}: {results.mean.value:.3f} of {results.usage.completion_tokens:,} tokens; {right}")


anyio.run(main, sys.argv[1] if len(sys.argv) > 1 else "runs/my-puzzles")

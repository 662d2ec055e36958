"""mlx-lm's BatchGenerator as people have it: the peer of benchmarks/as_shipped.py, in a process of its own.

    python benchmarks/peers/mlx_lm_batch.py FOLDER

No BLAS is loaded before MLX. FOLDER is a model of mlx-lm, or a ZAYA1 checkpoint, whose model is ours. Reads lines of
JSON {"prompts": [[ids]], "new_tokens": T} and answers each with the seconds that it took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["RSA_BLAS"] = "none"  # before the engine looks for one


def model_of(folder: Path) -> Any:
    if json.loads((folder / "config.json").read_text())["model_type"].startswith("zaya"):
        from engine.families.zaya.weights import load

        return load(folder)[0]
    from mlx_lm.utils import load_model

    return load_model(folder)[0]


def main() -> None:
    model = model_of(Path(sys.argv[1]))
    import mlx.core as mx
    from mlx_lm.generate import BatchGenerator
    from mlx_lm.sample_utils import make_sampler

    mx.random.seed(0)
    print(json.dumps({"mlx": mx.__version__}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        prompts, new = job["prompts"], job["new_tokens"]
        started = time.perf_counter()
        generator = BatchGenerator(model, max_tokens=new, sampler=make_sampler(temp=1.0))
        generator.insert(prompts, [new] * len(prompts))
        made = 0
        while made < len(prompts) * new:
            made += len(generator.next_generated())
        seconds = time.perf_counter() - started
        generator.close()
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()

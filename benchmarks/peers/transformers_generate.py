"""transformers' own `generate` on a checkpoint: the peer of benchmarks/decode.py, in a process of its own.

Reads lines of JSON {"prompt": [ids], "rows": B, "new_tokens": T} and answers each with the seconds that it took.
Needs torch (CPU is enough); the benchmark starts it with the interpreter given by --peer-python.
"""

from __future__ import annotations

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32).eval()
    print(json.dumps({"torch": torch.__version__, "threads": torch.get_num_threads()}), flush=True)
    for line in sys.stdin:
        job = json.loads(line)
        ids = torch.tensor([job["prompt"]] * job["rows"])
        started = time.perf_counter()
        with torch.inference_mode():
            out = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_new_tokens=job["new_tokens"],
                min_new_tokens=job["new_tokens"],
                pad_token_id=0,
            )
        seconds = time.perf_counter() - started
        assert out.shape[1] == len(job["prompt"]) + job["new_tokens"]
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()

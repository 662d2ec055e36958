"""A stub server as a program: it prints its URL and serves until it is killed.

python -m stub_server.program [--dialect vllm] [--port 0] [--rate 0.5 --seed 1 --kinds cut 500] [--tokens-per-s 20000]
"""

from __future__ import annotations

import argparse
import asyncio

from stub_server.faults import KINDS, FaultPlan
from stub_server.server import StubServer
from stub_server.shapes import NAMES, dialect
from stub_server.writing import Writer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--dialect", choices=NAMES, default="vllm")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--endless", action="store_true")
    parser.add_argument("--rate", type=float, default=0.0, help="how often a request fails")
    parser.add_argument("--spare", type=int, default=0, help="how many requests are well before that")
    parser.add_argument("--seed", type=int, default=0, help="of the failures")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--tokens-per-s", type=float, help="of all streams together")
    options = parser.parse_args()
    server = StubServer(
        dialect(options.dialect),
        Writer(endless=options.endless, context=options.context),
        model=options.model,
        faults=FaultPlan([None] * options.spare, rate=options.rate, kinds=options.kinds, seed=options.seed),
        tokens_per_s=options.tokens_per_s,
    )
    server.port = options.port
    asyncio.run(_serve(server))


async def _serve(server: StubServer) -> None:
    await server.listen()
    print(f"http://127.0.0.1:{server.port}/v1", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    main()

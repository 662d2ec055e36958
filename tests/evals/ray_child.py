"""An evaluation on a Ray cluster of two nodes, one of which is killed in the midst of it; run as a program.

Usage: ray_child.py FOLDER DATA. The node that is to die never answers in round 1. When all other problems are solved,
and those of the node stand in round 1, it is killed. What was asked for is in FOLDER/asked, a line each: node, problem,
request, seed. The names of lost workers go to standard output.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from engine.api import GenerationRequest
from engine.scripted import Script

SETTINGS: dict[str, Any] = {"n": 4, "c": 2, "t": 1, "beta": 64, "tau": 16, "answer_budget": 32}
PROBLEMS, IN_FLIGHT = 6, 2
_met: list[bool] = []


def script(request: GenerationRequest) -> Script:
    """Answers by the seed, where RSA_TEST_CLUSTER is not set, too."""
    folder = os.environ.get("RSA_TEST_CLUSTER")
    held = folder is not None and _on_the_cluster(Path(folder), request)
    return Script(f"thinking of it in {request.id}", rf"\boxed{{{request.sampling.seed % 3}}}", held=held)


def _on_the_cluster(folder: Path, request: GenerationRequest) -> bool:
    """Note what is asked for; whether it is to be held."""
    import ray

    node = ray.get_runtime_context().get_node_id()
    dies = node == (folder / "dies").read_text()
    if not _met:  # neither node begins without the other
        _met.append(True)
        with (folder / "meeting").open("w" if dies else "r"):
            pass
    problem = request.messages[0].text.split("number ")[1].split("?")[0]
    with (folder / "asked").open("a") as file:
        file.write(f"{node} {problem} {request.id} {request.sampling.seed}\n")
    return dies and request.id.startswith("r1")


def main(folder: Path, data: Path) -> None:
    from evals.events import EvalEvent, PlaceLost, RunEnded
    from evals.job import evaluate
    from evals.workers.ray_cluster import RayCluster

    os.mkfifo(folder / "meeting")
    os.environ["RSA_TEST_CLUSTER"] = str(folder)  # nodes inherit it
    ended = threading.Semaphore(0)

    def watch(event: EvalEvent) -> None:
        if isinstance(event, RunEnded):
            ended.release()
        elif isinstance(event, PlaceLost):
            print(event.name, event.left, flush=True)

    with TemporaryDirectory(prefix="ray-", dir="/tmp") as scratch:  # sockets need a short path
        os.environ["RAY_TMPDIR"] = scratch
        from ray.cluster_utils import Cluster

        size = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=size)
        node = cluster.add_node(**size)
        (folder / "dies").write_text(node.node_id)

        def kill() -> None:
            for _ in range(PROBLEMS - IN_FLIGHT):
                ended.acquire()
            while _in_round_1(folder / "out") < PROBLEMS or _held(folder) < IN_FLIGHT * SETTINGS["n"]:
                time.sleep(0.02)
            cluster.remove_node(node, allow_graceful=False)

        killer = threading.Thread(target=kill)
        killer.start()
        program = {**SETTINGS, "data": data, "in_flight": IN_FLIGHT, "executor": RayCluster(cluster.address)}
        anyio.run(lambda: evaluate("aime25", f"scripted:{__file__}", out=folder / "out", on_event=watch, **program))
        killer.join()
        cluster.shutdown()


def _in_round_1(folder: Path) -> int:
    """The runs whose logs have come so far."""
    return sum('"round_finished"' in path.read_text() for path in folder.glob("runs/*/events.jsonl"))


def _held(folder: Path) -> int:
    """The requests that are never answered."""
    dies = (folder / "dies").read_text()
    return sum(line.startswith(dies) and " r1-" in line for line in (folder / "asked").read_text().splitlines())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

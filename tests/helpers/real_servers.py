"""Servers of other people, started as they are shipped, on loopback.

`mlx_lm.server` runs the built-in model: mlx-lm imports a model's code from its folder if the configuration names a file
there, and the exported folder's file imports ours. Its weights are widened to float32, as our engine does on a CPU, so
that both compute the same logits. Its chat template writes the BOS that our engine adds by itself, and servers do not.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import processes

MODEL_FILE = """\
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.model import Model
"""
SERVE = "from engine.backend import load_mlx; load_mlx(); from mlx_lm.server import main; main()"
"""mlx-lm's own server, on the BLAS that our engine runs on too."""
LISTENS = "not recommended for production"
"""What it says once it listens."""


def export_nano(folder: Path) -> Path:
    """Write the built-in model as a folder that mlx-lm can load, when it may import code."""
    from engine.backend import load_mlx
    from engine.loader import NANO

    mx = load_mlx()
    folder.mkdir(parents=True)
    for path in NANO.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, folder)
    _change(folder / "config.json", model_file="zaya.py", dtype="float32")
    template = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))["chat_template"]
    _change(folder / "tokenizer_config.json", chat_template="{{ bos_token }}" + template)
    (folder / "zaya.py").write_text(MODEL_FILE)
    weights = {name: array.astype(mx.float32) for name, array in mx.load(str(NANO / "model.safetensors")).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


@contextmanager
def mlx_lm_server(folder: Path) -> Iterator[str]:
    """The URL of mlx-lm's server for a model folder, in a process of its own that is killed at the end."""
    port = _free_port()
    words = [
        sys.executable,
        "-c",
        SERVE,
        "--model",
        folder,
        "--trust-remote-code",
        "--port",
        port,
        "--log-level",
        "ERROR",
    ]
    cache = folder.parent / "hub"
    cache.mkdir(exist_ok=True)  # without one, it breaks off when it is asked for its models
    with processes.started(words, env={**os.environ, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}) as process:
        assert process.stderr is not None
        pipe, said = process.stderr, deque[str](maxlen=50)  # a pipe that nobody reads would fill up and stop the server
        listens = threading.Event()

        def read() -> None:
            for line in pipe:
                said.append(line)
                if LISTENS in line:
                    listens.set()
            listens.set()

        reader = threading.Thread(target=read)
        reader.start()
        listens.wait()
        assert process.poll() is None, "".join(said)
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()
            reader.join()


def _change(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])

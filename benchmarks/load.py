"""Loading a model: bytes read against bytes stored, and peak memory against both the files and the model.

python benchmarks/load.py [--layout hub|jang|converted] [--layers 4] [--hidden 512] [--full] [--dtype stored|float32]
                          [--dequantise] [--folder DIR]

A checkpoint of random numbers is written first, into a folder that is removed again unless it is named. A process of
its own then loads it. `converted` quantises a hub checkpoint with `rsa convert`'s code, and tells of that, too.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import report
from random_checkpoint import FULL, SMALL_VISION, write

from engine.backend import load_mlx
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.tensors import expected_tensors
from engine.mlx.quantised import Scheme

SHARD_BYTES = 4 << 30
FOUR, EIGHT = Scheme(4, 32), Scheme(8, 32)
ATTENTION = ("linear_q.weight", "linear_k.weight", "val_proj1.weight", "val_proj2.weight", "o_proj.weight")


def config_of(layers: int, hidden: int) -> dict[str, Any]:
    """ZAYA1-VL's proportions in another size."""
    sizes = {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "ffn_hidden_size": 2 * hidden,
        "head_dim": hidden // 16,
        "zaya_mlp_expansion": hidden // 8,
        "vocab_size": FULL["vocab_size"] * hidden // FULL["hidden_size"],
        "image_token_id": 999,
        "vision_start_token_id": 997,
        "vision_end_token_id": 998,
        "vision_config": {**SMALL_VISION, "out_hidden_size": hidden},
    }
    return {**FULL, **sizes}


# ---- a bundle of random codes --------------------------------------------------------------------------------------


def write_bundle(folder: Path, config: dict[str, Any]) -> None:
    """A community 4-bit bundle: the names, types and shapes of one."""
    mx = load_mlx()
    folder.mkdir(parents=True, exist_ok=True)
    code = {"bits": 4, "group_size": 32, "mode": "affine", "router_bits": 16, "expert_layout": "split_switch_mlp"}
    bundle = {"weight_format": "mxfp4", "zaya_expert_layout": "split_switch_mlp", "quantization": code}
    (folder / "config.json").write_text(json.dumps({**config, **bundle}))
    noise = np.random.default_rng(0).integers(0, 2**32, 1 << 20, dtype=np.uint32)
    shard: dict[str, Any] = {}
    count = 0
    for name, shape, dtype in bundle_tensors(ModelArgs.from_dict(config)):
        size = int(np.prod(shape))
        values = np.resize(noise, size) if dtype == "U32" else np.full(size, 0.01, np.float16)
        shard[name] = mx.array(values.reshape(shape))
        if sum(x.nbytes for x in shard.values()) > SHARD_BYTES:
            mx.save_safetensors(str(folder / f"model-{count}.safetensors"), shard)
            shard, count = {}, count + 1
    mx.save_safetensors(str(folder / f"model-{count}.safetensors"), shard)


def bundle_tensors(args: ModelArgs) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Name, shape and type of every tensor of a bundle."""
    for name, shape in expected_tensors(args, "vl").items():
        if ".local_experts." in name and ".linear_fc" in name:
            if name.endswith(".local_experts.0.linear_fc1.weight"):
                stem = name.split(".mlp.zaya_block")[0] + ".zaya_block.experts.switch_mlp"
                wide = (args.num_experts, args.expert_size, args.hidden_size)
                for part in ("gate", "up"):
                    yield from codes(f"{stem}.{part}_proj", wide, FOUR)
                yield from codes(f"{stem}.down_proj", (args.num_experts, args.hidden_size, args.expert_size), FOUR)
        elif name == "model.embed_tokens.weight":
            yield from codes("model.embed_tokens", shape, EIGHT)
        elif ".self_attn." in name and name.endswith(ATTENTION):
            yield from codes(name.removesuffix(".weight"), shape, FOUR)
        else:
            yield name, shape, "F16"


def codes(path: str, shape: tuple[int, ...], scheme: Scheme) -> Iterator[tuple[str, tuple[int, ...], str]]:
    for kind, part in scheme.shapes(shape).items():
        yield f"{path}.{kind}", part, "U32" if kind == "weight" else "F16"


# ---- measuring -----------------------------------------------------------------------------------------------------


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """What some work read, how long it took, and by how much the process grew at most meanwhile."""
    mx = load_mlx()
    mx.reset_peak_memory()
    before_read, before_rss = _process_file("io", "rchar"), _process_file("status", "VmRSS")
    if before_rss is not None:
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started = time.perf_counter()
    kept = work()
    seconds = time.perf_counter() - started
    after_read, peak = _process_file("io", "rchar"), _process_file("status", "VmHWM")
    grown = peak - before_rss if peak and before_rss else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    del kept
    return {
        "seconds": seconds,
        "read_bytes": after_read - before_read if after_read is not None and before_read is not None else None,
        "process_peak_bytes": grown,
        "mlx_peak_bytes": mx.get_peak_memory(),
    }


def _process_file(name: str, key: str) -> int | None:
    """A number that Linux tells of this process, in bytes; None on other systems."""
    file = Path("/proc/self") / name
    if not file.exists():
        return None
    (line,) = [line for line in file.read_text().splitlines() if line.startswith(f"{key}:")]
    value, *unit = line.split()[1:]
    return int(value) * (1024 if unit else 1)


def measure_load(folder: Path, *, stored: bool, dequantise: bool) -> dict[str, Any]:
    """In a process that has loaded nothing yet."""
    mx = load_mlx()
    from mlx.utils import tree_flatten

    from engine.families.zaya.weights import load

    size = sum(file.stat().st_size for file in folder.glob("model*.safetensors"))
    kind = stored_type(folder) if stored else mx.float32
    model = load_parameters = 0

    def work() -> Any:
        nonlocal model, load_parameters
        model, _ = load(folder, kind, keep_quantised=not dequantise)
        load_parameters = sum(x.nbytes for _, x in tree_flatten(model.parameters()))
        return model

    found = measured(work)
    return {**found, "file_bytes": size, "model_bytes": load_parameters}


def stored_type(folder: Path) -> Any:
    """The float type of the file's large tensors."""
    mx = load_mlx()
    from engine.files.checkpoint import read_headers, weight_files

    types = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
    floats = [info for info in read_headers(weight_files(folder)).values() if info.dtype in types]
    return types[max(floats, key=lambda info: info.nbytes).dtype]


def measure_convert(source: Path, target: Path) -> dict[str, Any]:
    """In a process that has loaded nothing yet."""
    from engine.families.zaya.convert import convert
    from engine.families.zaya.shards import Settings

    found = measured(lambda: convert(source, target, Settings(Scheme(4, 64))))
    return {**found, "file_bytes": sum(file.stat().st_size for file in source.glob("model*.safetensors"))}


# ---- the program ---------------------------------------------------------------------------------------------------


def in_another_process(*words: str) -> dict[str, Any]:
    done = subprocess.run([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def row(what: str, found: dict[str, Any]) -> dict[str, Any]:
    size = found["file_bytes"]
    read = found["read_bytes"]
    return {
        "what": what,
        "file MB": size / 1e6,
        "read / file": read / size if read is not None else float("nan"),
        "MLX peak / file": found["mlx_peak_bytes"] / size,
        "process peak / file": found["process_peak_bytes"] / size,
        "model / file": found.get("model_bytes", 0) / size,
        "seconds": found["seconds"],
    }


def run(args: argparse.Namespace, folder: Path) -> None:
    config = FULL if args.full else config_of(args.layers, args.hidden)
    checkpoint, rows = folder / args.layout, []
    if args.layout == "jang":
        write_bundle(checkpoint, config)
    else:
        write(folder / "hub", config)
    if args.layout == "converted":
        found = in_another_process("--measure", "convert", str(folder / "hub"), str(checkpoint))
        rows.append(row("convert to 4 bits", found))
    flags = ["--dtype", args.dtype, *(["--dequantise"] if args.dequantise else [])]
    rows.append(row(f"load {args.layout}", in_another_process("--measure", "load", str(checkpoint), *flags)))
    sizes = {"layers": config["num_hidden_layers"], "hidden": config["hidden_size"]}
    report("load", rows, **sizes, dtype=args.dtype, dequantised=args.dequantise)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layout", choices=("hub", "jang", "converted"), default="jang")
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--hidden", type=int, default=512, help="a multiple of 512")
    parser.add_argument("--full", action="store_true", help="the size of ZAYA1-VL-8B: 7 GB (jang) or 19 GB (hub)")
    parser.add_argument("--dtype", choices=("stored", "float32"), default="stored")
    parser.add_argument("--dequantise", action="store_true")
    parser.add_argument("--folder", type=Path, help="keep the checkpoint here")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        what, *paths = args.measure
        folders = [Path(path) for path in paths]
        if what == "convert":
            found = measure_convert(*folders)
        else:
            found = measure_load(*folders, stored=args.dtype == "stored", dequantise=args.dequantise)
        print(json.dumps(found))
    elif args.folder:
        run(args, args.folder)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(args, Path(folder))


if __name__ == "__main__":
    main()

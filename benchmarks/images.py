"""Image prompts: vision tower and language model up to the first logits, beside mlx-vlm on the same weights; then many
rows of one image prompt on the engine, with the memory that it all takes.

    python benchmarks/random_checkpoint.py OUT
    python benchmarks/images.py --model OUT [--peer SITE]

`--peer` is a folder that holds the unpacked mlx-vlm wheel (its model code alone is used; its own imports want much
more). Both prefill all tokens but the last into a cache, then feed the last. mlx-vlm takes the prompts as one batch;
ours one after the other, as the engine does. The contestants take turns; medians of the paired ratios are shown. Theirs
reads images causally, ours by the default of the published model (`prefix`).
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import complete, median, mlx_vlm_model, report

from engine.api import GenerationRequest, ImagePart, Message, SamplingParams
from engine.backend import load_mlx
from engine.families.zaya.weights import load
from engine.loader import load_engine

GRID = (1, 64, 128)
"""The patches of an image: 896 x 1792 pixels, 2048 tokens."""
TEXT_TOKENS = 32

Prefill = Callable[[list[list[int]], Any], Any]
"""A model's prefill: (prompts, patches of all images) -> logits [B, V]."""


def ours(folder: Path, mx: Any) -> Prefill:
    """The model of the engine."""
    model, _ = load(folder)
    per_image = GRID[0] * GRID[1] * GRID[2]

    def run(prompts: list[list[int]], patches: Any) -> Any:
        logits = []
        for row, prompt in enumerate(prompts):
            features = model.vision_tower(patches[row * per_image : (row + 1) * per_image], [GRID])
            ids = mx.array([prompt])
            embeddings, images = model.embed(ids, features)
            cache = model.make_cache()
            model(ids[:, :-1], cache=cache, input_embeddings=embeddings[:, :-1], image_mask=images[:, :-1])
            mx.eval([each.state for each in cache])
            logits.append(model(ids[:, -1:], cache=cache)[:, -1])
            mx.async_eval(logits[-1])
        return mx.concatenate(logits)

    return run


def mlx_vlm(folder: Path, site: Path, mx: Any) -> Prefill:
    """mlx-vlm's model with its own loading."""
    model = mlx_vlm_model(folder, site)

    def run(prompts: list[list[int]], patches: Any) -> Any:
        ids = mx.array(prompts)
        grids = mx.array([GRID] * len(prompts))
        merged = model.get_input_embeddings(ids, patches, image_grid_thw=grids)
        cache = model.make_cache()
        model.language_model(
            ids[:, :-1],
            inputs_embeds=merged.inputs_embeds[:, :-1],
            visual_pos_masks=merged.visual_pos_masks[:, :-1],
            cache=cache,
        )
        mx.eval([each.state for each in cache])
        return model.language_model(ids[:, -1:], cache=cache).logits[:, -1]

    return run


def prompts_for(config: dict[str, Any], rows: int) -> list[list[int]]:
    """Prompts of one image each and a few words that differ."""
    tokens = GRID[0] * GRID[1] * GRID[2] // 4
    image = [config["vision_start_token_id"], *[config["image_token_id"]] * tokens, config["vision_end_token_id"]]
    return [[config["bos_token_id"], *image, *(3 + row + i for i in range(TEXT_TOKENS))] for row in range(rows)]


def race(contestants: dict[str, Prefill], config: dict[str, Any], rows: int, rounds: int, mx: Any) -> dict[str, Any]:
    """Seconds of each for `rows` image prompts, and how much longer the peer takes."""
    prompts = prompts_for(config, rows)
    patches = mx.random.normal((rows * GRID[0] * GRID[1] * GRID[2], 588))
    mx.eval(patches)
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            started = time.perf_counter()
            mx.eval(run(prompts, patches))
            if turn:  # the first turn warms up
                seconds[name].append(time.perf_counter() - started)
    row: dict[str, Any] = {"B": rows, "tokens": len(prompts[0])}
    row |= {f"{name} s": median(taken) for name, taken in seconds.items()}
    if "mlx-vlm" in seconds:
        pairs = zip(seconds["ours"], seconds["mlx-vlm"], strict=True)
        row["mlx-vlm/ours"] = median([theirs / mine for mine, theirs in pairs])
    return row


def on_the_engine(folder: Path, rows: int, new_tokens: int, mx: Any) -> dict[str, Any]:
    """Load, then `rows` candidates of one image prompt: seconds and memory."""
    mx.reset_peak_memory()
    started = time.perf_counter()
    engine = load_engine(folder)
    loaded_s, weights, loading_peak = time.perf_counter() - started, mx.get_active_memory(), mx.get_peak_memory()
    mx.reset_peak_memory()
    message = Message(role="user", text="w7 w8 w9", images=(ImagePart(data=_photo()),))
    row: dict[str, Any] = {
        "load s": loaded_s,
        "weights GB": weights / 1e9,
        "loading peak / weights": loading_peak / weights,
    }
    for name, tokens in (("first", 1), ("decode", new_tokens)):
        sampling = SamplingParams(max_tokens=tokens)
        requests = [
            GenerationRequest(id=str(i), messages=(message,), sampling=sampling.model_copy(update={"seed": i}))
            for i in range(rows)
        ]
        started = time.perf_counter()
        done = complete(engine, requests)
        row[f"{name} s"] = time.perf_counter() - started
    row |= {"rows": rows, "prompt": done[0].usage.prompt_tokens, "new": new_tokens}
    row["tok/s"] = rows * new_tokens / row["decode s"]
    row["peak / weights"] = mx.get_peak_memory() / weights
    engine.close()
    return row


def _photo() -> bytes:
    from PIL import Image

    data = io.BytesIO()
    Image.effect_noise((GRID[2] * 14, GRID[1] * 14), 60).convert("RGB").save(data, "JPEG")
    return data.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder of a ZAYA1-VL checkpoint")
    parser.add_argument("--peer", type=Path, help="folder with the unpacked mlx-vlm wheel")
    parser.add_argument(
        "--batch", type=int, nargs="*", default=[1, 8], help="prompts at once; none leaves the race out"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16, help="on the engine; 0 leaves that part out")
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    mx = load_mlx()
    config = json.loads((args.model / "config.json").read_text())
    if args.rows:
        report("engine", [on_the_engine(args.model, args.rows, args.tokens, mx)])
    if not args.batch:
        return
    contestants = {"ours": ours(args.model, mx)}
    if args.peer:
        contestants["mlx-vlm"] = mlx_vlm(args.model, args.peer, mx)
    report("images", [race(contestants, config, rows, args.rounds, mx) for rows in args.batch], model=args.model.name)


if __name__ == "__main__":
    main()

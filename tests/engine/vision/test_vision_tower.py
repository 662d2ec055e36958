"""The vision tower: equal to the reference, and to a plain implementation with one dense mask."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlx.utils import tree_flatten

from engine.mlx import cpu
from engine.vision import tower as vision
from engine.vision.config import VisionArgs
from engine.vision.tower import Grid, VisionTower, convert_vision, vision_tensors

ARGS = VisionArgs(
    depth=3, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=24, full_attention_blocks=(1,)
)
TOLERANCE = 2e-5

Weights = dict[str, np.ndarray]


def close(actual: np.ndarray | mx.array, expected: np.ndarray | mx.array, atol: float = TOLERANCE) -> None:
    np.testing.assert_allclose(np.array(actual), np.array(expected), rtol=0, atol=atol)


def random_weights(args: VisionArgs) -> Weights:
    rng = np.random.default_rng(5)
    weights = {}
    for name, shape in vision_tensors(args).items():
        spread = 0.2 if len(shape) == 1 else 1 / math.sqrt(math.prod(shape[1:]))
        weights[name] = (rng.normal(size=shape) * spread + (".norm" in name or "ln_q" in name)).astype(np.float32)
    return weights


def load(args: VisionArgs, weights: Weights) -> VisionTower:
    tower = VisionTower(args)
    tensors = {name: mx.array(x) for name, x in weights.items()}
    tower.load_weights(list(convert_vision(args, tensors).items()))
    return tower


def some_patches(grids: list[Grid], args: VisionArgs = ARGS) -> mx.array:
    count = sum(t * h * w for t, h, w in grids)
    return mx.array(np.random.default_rng(count).normal(size=(count, args.patch_values)).astype(np.float32))


@pytest.fixture(scope="module")
def weights() -> Weights:
    return random_weights(ARGS)


@pytest.fixture(scope="module")
def tower(weights: Weights) -> VisionTower:
    return load(ARGS, weights)


# ---- by the definition -----------------------------------------------------------------------------------------


def plain(args: VisionArgs, weights: Weights, patches: np.ndarray, grids: list[Grid]) -> np.ndarray:
    """The whole tower in float64 with masks [P, P], patches in the order they come in."""
    w = {name: x.astype(np.float64) for name, x in weights.items()}
    image, y, x = places(args, grids)
    side = args.window_size // args.patch_size
    frame = image[:, None] == image
    window = frame & ((y // side)[:, None] == y // side) & ((x // side)[:, None] == x // side)
    d = args.hidden_size // args.num_heads
    frequencies = 10_000.0 ** (-np.arange(d // 4) / (d // 4))
    angles = np.concatenate([np.outer(y, frequencies), np.outer(x, frequencies)], axis=1)  # [P, d/2]
    turn = np.exp(1j * angles)[:, None]  # [P, 1, d/2]

    def linear(name: str, h: np.ndarray) -> np.ndarray:
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name: str, h: np.ndarray) -> np.ndarray:
        return h / np.sqrt((h**2).mean(-1, keepdims=True) + args.norm_eps) * w[f"{name}.weight"]

    def turned(h: np.ndarray) -> np.ndarray:
        both = (h[..., : d // 2] + 1j * h[..., d // 2 :]) * turn
        return np.concatenate([both.real, both.imag], axis=-1)

    h = patches.astype(np.float64) @ w["patch_embed.proj.weight"].reshape(args.hidden_size, -1).T
    for n in range(args.depth):
        q, k, v = linear(f"blocks.{n}.attn.qkv", norm(f"blocks.{n}.norm1", h)).reshape(len(h), 3, -1, d).swapaxes(0, 1)
        scores = np.einsum("ihd,jhd->hij", turned(q), turned(k)) / math.sqrt(d)
        scores = np.where(frame if n in args.full_attention_blocks else window, scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        h = h + linear(f"blocks.{n}.attn.proj", np.einsum("hij,jhd->ihd", shares, v).reshape(len(h), -1))
        z = norm(f"blocks.{n}.norm2", h)
        gate = linear(f"blocks.{n}.mlp.gate_proj", z)
        h = h + linear(f"blocks.{n}.mlp.down_proj", gate / (1 + np.exp(-gate)) * linear(f"blocks.{n}.mlp.up_proj", z))
    z = linear("merger.mlp.0", norm("merger.ln_q", h).reshape(-1, args.hidden_size * args.spatial_merge_size**2))
    z = z * 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return linear("merger.mlp.2", z)


def places(args: VisionArgs, grids: list[Grid]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frame, row and column of each patch in the processor's order, by walking through it."""
    found = []
    frame = 0
    merge = range(args.spatial_merge_size)
    for t, h, w in grids:
        for _ in range(t):
            for top in range(0, h, len(merge)):
                for left in range(0, w, len(merge)):
                    found += [(frame, top + dy, left + dx) for dy in merge for dx in merge]
            frame += 1
    image, y, x = np.array(found).T
    return image, y, x


GRIDS = st.lists(
    st.tuples(st.integers(1, 2), st.integers(1, 9).map(lambda n: 2 * n), st.integers(1, 9).map(lambda n: 2 * n)),
    min_size=1,
    max_size=2,
)
quick = settings(
    max_examples=20, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(grids=GRIDS)
def test_equals_a_plain_implementation(tower: VisionTower, weights: Weights, grids: list[Grid]) -> None:
    """Windows that an image's edge cuts off on any side, several images, several frames."""
    patches = some_patches(grids)
    close(tower(patches, grids), plain(ARGS, weights, np.array(patches), grids))


@pytest.mark.parametrize("window", [28, 56, 84, 500])
def test_other_windows(weights: Weights, window: int) -> None:
    args = VisionArgs(**{**vars(ARGS), "window_size": window})
    patches = some_patches([(1, 10, 14)])
    close(load(args, weights)(patches, [(1, 10, 14)]), plain(args, weights, np.array(patches), [(1, 10, 14)]))


# ---- against the reference -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_tower(golden: Path) -> VisionTower:
    config = json.loads((golden / "tiny_hf" / "config.json").read_text())
    args = VisionArgs.from_dict(config["vision_config"])
    prefix = "vision_tower."
    tensors = mx.load(str(golden / "tiny_hf" / "model.safetensors"))
    found = {name.removeprefix(prefix): x for name, x in tensors.items() if name.startswith(prefix)}
    assert {name: tuple(x.shape) for name, x in found.items()} == vision_tensors(args)
    tower = VisionTower(args)
    tower.load_weights(list(convert_vision(args, found).items()))
    return tower


@pytest.mark.parametrize("case", ["vis", "vis2"])
def test_equals_the_reference(golden: Path, golden_tower: VisionTower, case: str) -> None:
    with np.load(golden / "tiny_vl_ref.npz") as data:
        grids = [(int(t), int(h), int(w)) for t, h, w in data[f"{case}_grid"]]
        close(golden_tower(mx.array(data[f"{case}_pv"]), grids), data[f"{case}_feat"])


def test_images_together_and_alone(golden: Path, golden_tower: VisionTower) -> None:
    with np.load(golden / "tiny_vl_ref.npz") as data:
        one, two = data["vis_pv"], data["vis2_pv"]
        features = {n: data[f"{n}_feat"] for n in ("vis", "vis2")}
    patches = mx.array(np.concatenate([one, two, one]))
    together = golden_tower(patches, [(1, 4, 6), (1, 12, 20), (1, 4, 6)])
    close(together, np.concatenate([features["vis"], features["vis2"], features["vis"]]))


# ---- however it is computed ------------------------------------------------------------------------------------

MANY: list[Grid] = [(1, 4, 6), (1, 18, 10), (2, 10, 18), (1, 4, 6), (1, 2, 2)]


def test_images_a_few_at_a_time(tower: VisionTower, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.array(tower(some_patches(MANY), MANY))
    groups: list[list[Grid]] = []
    features = VisionTower._features
    monkeypatch.setattr(
        VisionTower, "_features", lambda self, x, grids: (groups.append(grids), features(self, x, grids))[1]
    )
    monkeypatch.setattr(vision, "_PATCHES_AT_ONCE", 204)
    close(tower(some_patches(MANY), MANY), whole)
    assert groups == [MANY[:2], MANY[2:3], MANY[3:]]


@pytest.mark.parametrize("on_cpu", [True, False])
@pytest.mark.parametrize("scores", [1, 500, 9_000, 1 << 28])
def test_computed_in_parts(tower: VisionTower, monkeypatch: pytest.MonkeyPatch, scores: int, on_cpu: bool) -> None:
    """As on the CPU and as on a GPU: some windows at a time, or some queries, or some patches."""
    whole = np.array(tower(some_patches(MANY), MANY))
    monkeypatch.setattr(cpu, "on_cpu", lambda: on_cpu)
    monkeypatch.setattr(vision, "_SCORES", scores)
    monkeypatch.setattr(vision, "_SCORES_ON_CPU", scores)
    monkeypatch.setattr(vision, "_FEWEST_QUERIES", 7)
    monkeypatch.setattr(vision, "_MLP_PATCHES", 100)
    close(tower(some_patches(MANY), MANY), whole)


def test_memory_does_not_grow_with_the_square(weights: Weights) -> None:
    args = VisionArgs(**{**vars(ARGS), "depth": 1, "full_attention_blocks": (0,)})
    tower = load(args, {name: x for name, x in weights.items() if name in vision_tensors(args)})
    grid = (1, 48, 80)  # 3,840 patches: 118 MB of scores, and as much for each step of their softmax
    patches = some_patches([grid])
    mx.eval(patches, tower.parameters())
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    tower(patches, [grid])
    assert mx.get_peak_memory() - before < 50e6


def test_bfloat16(tower: VisionTower, weights: Weights) -> None:
    grids: list[Grid] = [(1, 6, 10)]
    exact = np.array(tower(some_patches(grids), grids))
    rough = load(ARGS, weights)
    rough.set_dtype(mx.bfloat16)
    features = rough(some_patches(grids), grids)
    assert features.dtype == mx.bfloat16
    difference = np.array(features.astype(mx.float32)) - exact
    assert np.sqrt((difference**2).mean() / (exact**2).mean()) < 0.01


WRONG: list[tuple[Callable[[], mx.array], list[Grid], str]] = [
    (lambda: some_patches([(1, 4, 6)]), [(1, 4, 4)], r"need \[16, 588\]"),
    (lambda: some_patches([(1, 4, 6)])[:, :-1], [(1, 4, 6)], r"not \(24, 587\)"),
    (lambda: some_patches([(1, 3, 8)]), [(1, 3, 8)], "multiples of 2"),
    (lambda: some_patches([(1, 4, 6)]), [], "multiples of 2"),
]


@pytest.mark.parametrize(("make", "grids", "message"), WRONG)
def test_grids_that_do_not_fit(
    tower: VisionTower, make: Callable[[], mx.array], grids: list[Grid], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tower(make(), grids)


# ---- tensors ---------------------------------------------------------------------------------------------------


def test_names_are_the_checkpoints() -> None:
    parameters = {name for name, _ in tree_flatten(VisionTower(ARGS).parameters())}
    assert parameters == set(vision_tensors(ARGS))
    assert len(vision_tensors(VisionArgs())) == 390  # as the published checkpoint has


def test_the_patch_embedding_in_any_layout(weights: Weights) -> None:
    name = "patch_embed.proj.weight"
    args = VisionArgs(**{**vars(ARGS), "temporal_patch_size": 2})
    torch_layout = mx.array(random_weights(args)[name])  # [H, 3, 2, 14, 14]
    matrix = convert_vision(args, {name: torch_layout})[name]
    assert matrix.shape == (32, args.patch_values)
    np.testing.assert_array_equal(np.array(matrix), np.array(torch_layout).reshape(32, -1))
    for layout in (mx.moveaxis(torch_layout, 1, -1), matrix):
        np.testing.assert_array_equal(np.array(convert_vision(args, {name: layout})[name]), np.array(matrix))

"""The ZAYA1 models as a family: those that read text, and those that see."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from engine.errors import EngineError, ModelError
from engine.families.family import Family
from engine.families.zaya import decode, jang
from engine.families.zaya.config import ModelArgs
from engine.families.zaya.convert import convert
from engine.families.zaya.model import Model
from engine.families.zaya.shards import Settings
from engine.families.zaya.tensors import detect_naming
from engine.families.zaya.weights import build, load_folder, load_lazily, read_checkpoint
from engine.files.checkpoint import OnProgress, TensorInfo
from engine.files.conversion import Conversion
from engine.files.folder import ModelFolder
from engine.files.inspection import Layout
from engine.mlx.features import ImageStore
from engine.mlx.quantised import Scheme
from engine.vision.preprocess import ImageProcessor

LAYOUTS = {
    "vl": "hub checkpoint, ZAYA1-VL",
    "native": "hub checkpoint, ZAYA1 as transformers names it",
    "legacy": "hub checkpoint, ZAYA1 as first released",
    "jang": "community 4-bit bundle (JANG)",
    "ours": "converted by rsa or mlx-lm, ZAYA1",
}
"""Layout of a checkpoint -> what it is called for people."""


class Zaya(Family):
    """ZAYA1 and ZAYA1-VL, in every layout that `engine.families.zaya.weights` reads."""

    def load(self, folder: ModelFolder, *, kv_bits: int | None = None) -> Model:
        model, _ = load_folder(folder)
        model.kv_bits = kv_bits
        decode.adopt(model)
        return model

    def slow_here(self) -> tuple[str, ...]:
        return decode.slow_here()

    def image_store(self, folder: ModelFolder) -> ImageStore | None:
        args = ModelArgs.from_dict(folder.config)
        if args.vision is None or args.image_token_id is None:
            return None
        marks = [i for i in (args.vision_start_id, args.vision_end_id) if i is not None]
        processor = ImageProcessor.from_folder(folder.path, args.vision)
        return ImageStore(processor, token_id=args.image_token_id, mark_ids=marks)

    def layers(self, folder: ModelFolder) -> int | None:
        count = super().layers(folder)
        # The first release counts attention and experts apart.
        legacy = folder.model_type == "zaya" and "cca_num_q_heads" in folder.config
        return count // 2 if count and legacy else count

    def layout(self, folder: ModelFolder, tensors: Mapping[str, TensorInfo]) -> Layout | None:
        if jang.is_bundle(folder.config):
            return _layout("jang")
        try:
            return _layout(detect_naming(tensors))
        except ModelError:
            return None

    def problems(self, folder: ModelFolder, files: list[Path]) -> list[str]:
        """What loading would say of the configuration, the image processor's settings and the tensors, of which no
        more than the shapes are looked at."""
        try:
            args = ModelArgs.from_dict(folder.config)
        except EngineError as error:
            return [str(error)]

        def fit() -> None:
            build(args, read_checkpoint(folder, args, load_lazily(files), None), None, keep_quantised=True)

        problems = [] if args.vision is None else _complaints(ImageProcessor.from_folder, folder.path, args.vision)
        return problems + (_complaints(fit) if files else [])

    def convert(
        self,
        folder: ModelFolder,
        target: Path,
        *,
        bits: int,
        mode: str,
        group_size: int | None,
        dtype: str | None,
        on_progress: OnProgress,
    ) -> Conversion:
        if group_size is None:
            group_size = 64 if mode == "affine" else 32
        return convert(folder.path, target, Settings(Scheme(bits, group_size, mode), dtype), on_progress)


def _layout(name: str) -> Layout:
    return Layout(name, LAYOUTS[name])


def _complaints(check: Callable[..., object], *arguments: object) -> list[str]:
    """What a check says is wrong, if anything is."""
    try:
        check(*arguments)
    except EngineError as error:
        return [str(error)]
    return []


FAMILY = Zaya()

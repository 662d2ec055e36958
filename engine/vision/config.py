"""What a `config.json` says of the image encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.errors import ModelError
from engine.files.reading import ConfigReader


@dataclass(frozen=True)
class VisionArgs:
    """Sizes of the vision tower, a Qwen2.5-VL encoder; the defaults are those of ZAYA1-VL-8B.

    patch_size and window_size are in pixels; spatial_merge_size x spatial_merge_size patches become one token of
    out_hidden_size numbers. temporal_patch_size is the frames in one patch; the pixels are cut accordingly, whatever
    the preprocessor's own file says. The blocks in full_attention_blocks see a whole image, others one window.
    """

    depth: int = 32
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    patch_size: int = 14
    temporal_patch_size: int = 1
    spatial_merge_size: int = 2
    out_hidden_size: int = 2048
    window_size: int = 112
    full_attention_blocks: tuple[int, ...] = (7, 15, 23, 31)
    in_channels: int = 3
    norm_eps: float = 1e-6

    @property
    def patch_values(self) -> int:
        """Numbers in one patch."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> VisionArgs:
        """Read `vision_config`, hub spellings included; what it leaves out has the default above.

        Raises ModelError, naming the key: a value is of the wrong kind, contradicts another one, or asks for a
        variant of the network that is not implemented.
        """
        read = ConfigReader(config, "vision_config.", model="an image encoder")
        read.fixed("hidden_act", ("silu",))
        args = cls(
            depth=read.integer("depth", default=cls.depth),
            hidden_size=read.integer("hidden_size", default=cls.hidden_size),
            intermediate_size=read.integer("intermediate_size", default=cls.intermediate_size),
            num_heads=read.integer("num_heads", default=cls.num_heads),
            patch_size=read.integer("patch_size", "spatial_patch_size", default=cls.patch_size),
            temporal_patch_size=read.integer("temporal_patch_size", default=cls.temporal_patch_size),
            spatial_merge_size=read.integer("spatial_merge_size", default=cls.spatial_merge_size),
            out_hidden_size=read.integer("out_hidden_size", default=cls.out_hidden_size),
            window_size=read.integer("window_size", default=cls.window_size),
            full_attention_blocks=read.indices("fullatt_block_indexes", default=cls.full_attention_blocks),
            in_channels=read.integer("in_channels", "in_chans", default=cls.in_channels),
            norm_eps=read.number("rms_norm_eps", "norm_eps", default=cls.norm_eps),
        )
        args._check()
        return args

    def _check(self) -> None:
        if self.hidden_size % self.num_heads or (self.hidden_size // self.num_heads) % 4:
            raise ModelError(
                f"config.json: vision_config.hidden_size ({self.hidden_size}) over num_heads ({self.num_heads}) must "
                "be a multiple of 4: a quarter of each head is rotated by row, a quarter by column"
            )
        if self.window_size < self.patch_size * self.spatial_merge_size:
            raise ModelError(
                f"config.json: vision_config.window_size ({self.window_size} pixels) is less than one token, "
                f"{self.patch_size * self.spatial_merge_size} pixels"
            )
        if any(i >= self.depth for i in self.full_attention_blocks):
            raise ModelError(
                f"config.json: vision_config.fullatt_block_indexes is {list(self.full_attention_blocks)}, but there "
                f"are {self.depth} blocks, counted from 0"
            )

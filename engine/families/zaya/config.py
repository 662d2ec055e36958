"""What a ZAYA1 `config.json` says, in one set of names.

Three dialects are read: `zaya` as transformers writes it (one entry of `num_hidden_layers` per block), `zaya` as
the authors first published it (80 sub-layers for 40 blocks, Megatron's key names), and the flat
`zaya1_vl` configuration. A key may appear under several of its names as long as the values agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from engine.errors import ModelError
from engine.files.reading import ConfigReader
from engine.vision.config import VisionArgs

MODEL_TYPES = ("zaya", "zaya1_vl")
CONV_TAPS = 3
"""Tokens seen by the two causal convolutions of width 2 together."""

ImageMask = Literal["prefix", "block", "pair", "causal"]
"""The readings of who sees whom around images, beside everything before: see `engine.families.zaya.masks`."""

# Settings that this implementation has one value for. Another value means another network: refused by name.
_FIXED: dict[str, tuple[Any, ...]] = {
    "cca_time0": (2,),
    "cca_time1": (2,),
    "num_experts_per_tok": (1,),
    "moe_router_topk": (1,),
    "hidden_act": ("silu",),
    "activation_func": ("swiglu",),
    "gated_linear_unit": (True,),
    "attention_bias": (False,),
    "add_bias_linear": (False,),
    "lm_head_bias": (False,),
    "scale_residual_merge": (True,),
    "fused_add_norm": (False,),
    "zaya_use_mod": (True,),
    "zaya_use_eda": (True,),
    "rope_scaling": (False, None),
    "use_rope_scaling": (False, None),
    "sliding_window": (None, False),
    "swa_layers": (None, [], False),
}


@dataclass(frozen=True)
class ModelArgs:
    """Sizes and constants of one model.

    num_layers counts blocks (attention and experts), whatever the file counts. expert_size is the inner width of
    one expert. rope_dims is the leading part of each head that is rotated. clamp_temp: the key temperatures of the
    checkpoint are logarithms to be clipped and exponentiated.

    vision is None for a model that does not see; then the ids are None and the LoRA ranks 0 whatever the file says.
    The ranks are 0 too where vision_lora is off. image_mask is no key of the published files: people may set it.
    residual_in_fp32 is read and changes nothing: the residual stream is float32 for either value. Rounded to
    bfloat16 after each sub-layer it brings 35 times the error into the logits (1.06% against 0.03%, with 85% against
    100% of the first choices kept: 40 random layers against float32), whatever a model was trained with.
    """

    model_type: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    num_experts: int
    expert_size: int
    router_size: int
    rope_theta: float
    rope_dims: int
    norm_eps: float = 1e-5
    max_positions: int | None = None
    tie_word_embeddings: bool = True
    clamp_temp: bool = False
    residual_in_fp32: bool = True
    vision: VisionArgs | None = None
    image_mask: ImageMask = "prefix"
    image_token_id: int | None = None
    vision_start_id: int | None = None
    vision_end_id: int | None = None
    lora_rank_attn: int = 0
    lora_rank_mlp: int = 0

    @property
    def qk_heads(self) -> int:
        """Heads that go through the convolutions: query heads, then key heads."""
        return self.num_heads + self.num_kv_heads

    @property
    def qk_width(self) -> int:
        """Channels of the queries and keys of one token."""
        return self.qk_heads * self.head_dim

    @property
    def value_width(self) -> int:
        """Channels of one of the two halves of the values (current token, previous token)."""
        return self.num_kv_heads * self.head_dim // 2

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> ModelArgs:
        """Read a configuration.

        Raises ModelError, naming the key: a value is missing, of the wrong kind, contradicts another one, or asks
        for a variant of the network that is not implemented.
        """
        read = _Reader(config, model="ZAYA1")
        model_type = config.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ModelError(f"config.json: model_type is {model_type!r}, not one of {', '.join(MODEL_TYPES)}")
        read.refuse_variants()
        legacy = model_type == "zaya" and ("cca_num_q_heads" in config or "zaya_mlp_expansion" in config)
        head_dim = read.integer("head_dim", "kv_channels")
        theta, fraction = read.rope(model_type)
        args = cls(
            model_type=model_type,
            vocab_size=read.integer("vocab_size"),
            hidden_size=read.integer("hidden_size"),
            num_layers=read.layers(legacy),
            num_heads=read.query_heads(),
            num_kv_heads=read.integer("num_key_value_heads", "num_query_groups"),
            head_dim=head_dim,
            num_experts=read.integer("num_experts"),
            expert_size=read.expert_size(),
            router_size=read.integer("router_hidden_size", "zaya_mlp_expansion"),
            rope_theta=theta,
            rope_dims=int(head_dim * fraction),
            norm_eps=read.number("rms_norm_eps", "norm_epsilon", default=1e-5),
            max_positions=read.optional_integer("max_position_embeddings"),
            tie_word_embeddings=read.flag("tie_word_embeddings", default=True),
            clamp_temp=read.flag("clamp_temp", default=False),
            residual_in_fp32=read.flag("residual_in_fp32", default=True),
            image_mask=read.image_mask(),
            **read.vision(model_type),
        )
        args._check()
        return args

    def _check(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ModelError(
                f"config.json: {self.num_heads} query heads cannot share {self.num_kv_heads} key heads "
                "(num_attention_heads or cca_num_q_heads, num_key_value_heads or num_query_groups)"
            )
        if (self.num_kv_heads * self.head_dim) % 2:
            raise ModelError("config.json: num_key_value_heads x head_dim must be even: half of the values is delayed")
        if self.rope_dims % 2 or not 0 < self.rope_dims <= self.head_dim:
            raise ModelError(
                f"config.json: partial_rotary_factor (or rope_pct) rotates {self.rope_dims} of {self.head_dim} "
                "dimensions of a head; it must be an even number from 2 to head_dim"
            )
        if self.vision is not None and self.vision.out_hidden_size != self.hidden_size:
            raise ModelError(
                f"config.json: vision_config.out_hidden_size is {self.vision.out_hidden_size}, but a token of this "
                f"model has {self.hidden_size} numbers (hidden_size)"
            )
        for token in (self.image_token_id, self.vision_start_id, self.vision_end_id):
            if token is not None and token >= self.vocab_size:
                raise ModelError(
                    f"config.json: image_token_id, vision_start_token_id and vision_end_token_id must be below "
                    f"vocab_size ({self.vocab_size}); one is {token}"
                )


class _Reader(ConfigReader):
    """What a configuration of ZAYA1 says."""

    def refuse_variants(self) -> None:
        for key, allowed in _FIXED.items():
            self.fixed(key, allowed)
        kinds = self.config.get("layer_types")
        if kinds is None:
            return
        if not isinstance(kinds, list):
            raise ModelError(f"{self.where}layer_types is {kinds!r}, not a list of names")
        if (other := next((kind for kind in kinds if kind != "hybrid"), None)) is not None:
            raise ModelError(f"{self.where}layer_types has {other!r}; only 'hybrid' is implemented for ZAYA1")

    def image_mask(self) -> ImageMask:
        value = self.config.get("image_mask", "prefix")
        if value not in get_args(ImageMask):
            raise ModelError(f"{self.where}image_mask is {value!r}, not one of {', '.join(get_args(ImageMask))}")
        return value

    def vision(self, model_type: str) -> dict[str, Any]:
        """The fields of `ModelArgs` about images; none for a text model, or for the language part of one that sees."""
        nested = self.config.get("vision_config")
        if nested is None or model_type != "zaya1_vl":
            return {}
        if not isinstance(nested, dict):
            raise ModelError(f"{self.where}vision_config is {nested!r}, not a table of settings")
        lora = self.flag("vision_lora", default=True)
        return {
            "vision": VisionArgs.from_dict(nested),
            "image_token_id": self.integer("image_token_id", default=262147),
            "vision_start_id": self.integer("vision_start_token_id", default=255999),
            "vision_end_id": self.integer("vision_end_token_id", default=256000),
            "lora_rank_attn": self.integer("vision_lora_rank_attn", default=8) if lora else 0,
            "lora_rank_mlp": self.integer("vision_lora_rank_mlp", default=32) if lora else 0,
        }

    def query_heads(self) -> int:
        # The authors' text files say hidden_size / 128 under num_attention_heads; their own code never reads it.
        if "cca_num_q_heads" in self.config:
            value = self.config["cca_num_q_heads"]
            if isinstance(value, list):  # one entry per sub-layer in some files
                values = {v for v in value if v}
                if len(values) != 1:
                    raise ModelError("config.json: cca_num_q_heads differs from layer to layer: not implemented")
                self.config = {**self.config, "cca_num_q_heads": values.pop()}
            return self.integer("cca_num_q_heads")
        return self.integer("num_attention_heads")

    def layers(self, legacy: bool) -> int:
        count = self.integer("num_hidden_layers")
        kinds = self.config.get("layer_types")
        if kinds is not None and len(kinds) != count:
            raise ModelError(f"config.json: num_hidden_layers is {count} but layer_types has {len(kinds)} entries")
        if not legacy:
            return count
        if count % 2:
            raise ModelError(
                f"config.json: num_hidden_layers is {count}; this older layout counts attention and experts "
                "separately, so it must be even"
            )
        return count // 2

    def expert_size(self) -> int:
        wide = self.optional_integer("ffn_hidden_size")  # gate and up together
        size = self.optional_integer("moe_intermediate_size")
        if wide is None and size is None:
            raise ModelError("config.json: moe_intermediate_size or ffn_hidden_size is missing")
        if wide is not None and wide % 2:
            raise ModelError(f"config.json: ffn_hidden_size is {wide}; it holds gate and up, so it must be even")
        if wide is not None and size is not None and wide != 2 * size:
            raise ModelError(f"config.json: ffn_hidden_size ({wide}) is not twice moe_intermediate_size ({size})")
        return size if size is not None else (wide or 0) // 2

    def rope(self, model_type: str) -> tuple[float, float]:
        """Base and rotated fraction."""
        nested = self.config.get("rope_parameters")
        if nested is None:
            return (
                self.number("rope_theta", "rotary_base", default=1e6 if model_type == "zaya1_vl" else 5e6),
                self.number("partial_rotary_factor", "rope_pct", default=0.5),
            )
        if not isinstance(nested, dict) or not isinstance(nested.get("hybrid", nested), dict):
            raise ModelError(f"config.json: rope_parameters is {nested!r}, not a table of settings")
        # The hub's file has a table per kind of layer and, beside them, a stray flat rope_type.
        table = nested.get("hybrid", nested)
        kind = table.get("rope_type", "default")
        if kind != "default":
            raise ModelError(f"config.json: rope_parameters.rope_type is {kind!r}; only 'default' is implemented.")
        inner = ConfigReader(table)
        return inner.number("rope_theta"), inner.number("partial_rotary_factor", default=0.5)

"""What a ZAYA1 `config.json` says, in one set of names.

Three dialects are read: `zaya` as transformers writes it (one entry of `num_hidden_layers` per block), `zaya` as
the authors first published it (80 sub-layers for 40 blocks, Megatron's key names), and the language part of the
flat `zaya1_vl` configuration. A key may appear under several of its names as long as the values agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from engine.errors import ModelError

MODEL_TYPES = ("zaya", "zaya1_vl")
CONV_TAPS = 3
"""Tokens seen by the two causal convolutions of width 2 together."""

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

T = TypeVar("T", int, float, bool)


@dataclass(frozen=True)
class ModelArgs:
    """Sizes and constants of one model.

    num_layers counts blocks (attention and experts), whatever the file counts. expert_size is the inner width of
    one expert. rope_dims is the leading part of each head that is rotated. clamp_temp: the key temperatures of the
    checkpoint are logarithms to be clipped and exponentiated.
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
        read = _Reader(config)
        model_type = config.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ModelError(f"config.json: model_type is {model_type!r}, not one of {', '.join(MODEL_TYPES)}.")
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
        )
        args._check()
        return args

    def _check(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ModelError(
                f"config.json: {self.num_heads} query heads cannot share {self.num_kv_heads} key heads "
                "(num_attention_heads or cca_num_q_heads, num_key_value_heads or num_query_groups)."
            )
        if (self.num_kv_heads * self.head_dim) % 2:
            raise ModelError("config.json: num_key_value_heads x head_dim must be even: half of the values is delayed.")
        if self.rope_dims % 2 or not 0 < self.rope_dims <= self.head_dim:
            raise ModelError(
                f"config.json: partial_rotary_factor (or rope_pct) rotates {self.rope_dims} of {self.head_dim} "
                "dimensions of a head; it must be an even number from 2 to head_dim."
            )


class _Reader:
    """Typed look-ups in a configuration, under all names that a key has had."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config

    def refuse_variants(self) -> None:
        for key, allowed in _FIXED.items():
            if key in self.config and self.config[key] not in allowed:
                raise ModelError(
                    f"config.json: {key} is {self.config[key]!r}; only {allowed[0]!r} is implemented for ZAYA1."
                )
        kinds = self.config.get("layer_types")
        if kinds is not None and any(kind != "hybrid" for kind in kinds):
            other = next(kind for kind in kinds if kind != "hybrid")
            raise ModelError(f"config.json: layer_types has {other!r}; only 'hybrid' is implemented for ZAYA1.")

    def integer(self, *names: str) -> int:
        """The positive whole number under any of the names; ModelError if there is none or they differ."""
        value = self.optional_integer(*names)
        if value is None:
            raise ModelError(f"config.json: {' or '.join(names)} is missing.")
        return value

    def optional_integer(self, *names: str) -> int | None:
        for name, value in self._present(names).items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ModelError(f"config.json: {name} is {value!r}, not a positive whole number.")
        return self._agreed(names, None)

    def number(self, *names: str, default: float | None = None) -> float:
        for name, value in self._present(names).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise ModelError(f"config.json: {name} is {value!r}, not a positive number.")
        value = self._agreed(names, default)
        if value is None:
            raise ModelError(f"config.json: {' or '.join(names)} is missing.")
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self.config.get(name, default)
        if not isinstance(value, bool):
            raise ModelError(f"config.json: {name} is {value!r}, not true or false.")
        return value

    def query_heads(self) -> int:
        # The authors' text files say hidden_size / 128 under num_attention_heads; their own code never reads it.
        if "cca_num_q_heads" in self.config:
            value = self.config["cca_num_q_heads"]
            if isinstance(value, list):  # one entry per sub-layer in some files
                values = {v for v in value if v}
                if len(values) != 1:
                    raise ModelError("config.json: cca_num_q_heads differs from layer to layer: not implemented.")
                self.config = {**self.config, "cca_num_q_heads": values.pop()}
            return self.integer("cca_num_q_heads")
        return self.integer("num_attention_heads")

    def layers(self, legacy: bool) -> int:
        count = self.integer("num_hidden_layers")
        kinds = self.config.get("layer_types")
        if kinds is not None and len(kinds) != count:
            raise ModelError(f"config.json: num_hidden_layers is {count} but layer_types has {len(kinds)} entries.")
        if not legacy:
            return count
        if count % 2:
            raise ModelError(
                f"config.json: num_hidden_layers is {count}; this older layout counts attention and experts "
                "separately, so it must be even."
            )
        return count // 2

    def expert_size(self) -> int:
        wide = self.optional_integer("ffn_hidden_size")  # gate and up together
        size = self.optional_integer("moe_intermediate_size")
        if wide is None and size is None:
            raise ModelError("config.json: moe_intermediate_size or ffn_hidden_size is missing.")
        if wide is not None and wide % 2:
            raise ModelError(f"config.json: ffn_hidden_size is {wide}; it holds gate and up, so it must be even.")
        if wide is not None and size is not None and wide != 2 * size:
            raise ModelError(f"config.json: ffn_hidden_size ({wide}) is not twice moe_intermediate_size ({size}).")
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
            raise ModelError(f"config.json: rope_parameters is {nested!r}, not a table of settings.")
        # The hub's file has a table per kind of layer and, beside them, a stray flat rope_type.
        table = nested.get("hybrid", nested)
        kind = table.get("rope_type", "default")
        if kind != "default":
            raise ModelError(f"config.json: rope_parameters.rope_type is {kind!r}; only 'default' is implemented.")
        inner = _Reader(table)
        return inner.number("rope_theta"), inner.number("partial_rotary_factor", default=0.5)

    def _present(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self.config[name] for name in names if self.config.get(name) is not None}

    def _agreed(self, names: tuple[str, ...], default: T | None) -> T | None:
        found = self._present(names)
        if len(set(found.values())) > 1:
            listed = ", ".join(f"{name} = {value!r}" for name, value in found.items())
            raise ModelError(f"config.json: these must agree and do not: {listed}.")
        return next(iter(found.values()), default)

"""The ZAYA1 language model in mlx-lm's model protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
from mlx import nn

from engine.zaya.attention import CCA, Rotary, attend
from engine.zaya.cache import CCACache, kv_bytes_per_token, state_bytes
from engine.zaya.config import ModelArgs
from engine.zaya.cpu import on_cpu
from engine.zaya.moe import MoE
from engine.zaya.tensors import convert


class ResidualScale(nn.Module):
    """Adds a sub-layer's output to the residual stream, both shifted and scaled per channel first."""

    def __init__(self, size: int, first: bool = False) -> None:
        super().__init__()
        self.hidden_states_scale = mx.ones((size,))
        self.hidden_states_bias = mx.zeros((size,))
        if not first:
            self.residual_scale = mx.ones((size,))
            self.residual_bias = mx.zeros((size,))

    def __call__(self, h: mx.array, residual: mx.array | None) -> mx.array:
        """h [B, n, H] of any float type; residual float32, or None before the first sub-layer -> float32."""
        h = (h.astype(mx.float32) + self.hidden_states_bias) * self.hidden_states_scale
        if residual is None:
            return h
        return h + (residual + self.residual_bias) * self.residual_scale


class AttentionLayer(nn.Module):
    def __init__(self, args: ModelArgs, first: bool) -> None:
        super().__init__()
        self.res_scale = ResidualScale(args.hidden_size, first)
        self.input_norm = nn.RMSNorm(args.hidden_size, args.norm_eps)
        self.self_attn = CCA(args)


class ExpertLayer(nn.Module):
    def __init__(self, args: ModelArgs, first: bool) -> None:
        super().__init__()
        self.res_scale = ResidualScale(args.hidden_size)
        self.input_norm = nn.RMSNorm(args.hidden_size, args.norm_eps)
        self.zaya_block = MoE(args, first)


@dataclass(frozen=True)
class Step:
    """What all layers share in one forward pass of n tokens: see `CCACache.make_mask` and `pad_mask`."""

    rotary: Rotary
    mask: mx.array | str | None
    pad_mask: mx.array | None
    dtype: mx.Dtype
    on_cpu: bool


class Block(nn.Module):
    """Attention and experts of one layer. What `enter` and `leave` compute has the same shapes from token to token
    in decoding; compiling them on the CPU gained little and cost 50 ms at every change of the batch."""

    def __init__(self, args: ModelArgs, index: int) -> None:
        super().__init__()
        self.args = args
        self.attn = AttentionLayer(args, first=index == 0)
        self.mlp = ExpertLayer(args, first=index == 0)

    def __call__(
        self, h: mx.array, residual: mx.array | None, router_state: mx.array | None, step: Step, cache: CCACache
    ) -> tuple[mx.array, mx.array, mx.array]:
        """h [B, n, H], the last sub-layer's output, and the stream before it -> the same and the router's state."""
        args = self.args
        before = cache.fetch_tail(h.shape[0], args.qk_width + args.value_width, step.dtype)
        residual, q, k, v, latents = self.enter(h, residual, before, step)
        cache.update_tail(latents)
        k, v = cache.update_and_fetch(k, v)
        h = attend(q, k, v, step.mask, on_cpu=step.on_cpu)
        if step.on_cpu:
            mx.async_eval(h)  # the experts will wait for it there: let it run while Python writes on
        residual, x, choice, weight, router_state = self.leave(h, residual, router_state)
        y = self.mlp.zaya_block.run_experts(x, choice, step.dtype)
        h = self.mlp.zaya_block.weighted(y, x, choice, weight).reshape(residual.shape)
        return h, residual, router_state

    def enter(
        self, h: mx.array, residual: mx.array | None, before: mx.array, step: Step
    ) -> tuple[mx.array, mx.array, mx.array, mx.array, mx.array]:
        """Up to the attention: stream, queries, keys, values, latents (see `CCA.project`)."""
        residual = self.attn.res_scale(h, residual)
        x = self.attn.input_norm(residual).astype(step.dtype)
        if step.pad_mask is not None:
            # Selected, not multiplied: whatever padding computes, it must not reach a real token.
            x = mx.where(step.pad_mask[..., None], x, mx.zeros((), x.dtype))
        return residual, *self.attn.self_attn.project(x, before, step.rotary)

    def leave(
        self, h: mx.array, residual: mx.array, router_state: mx.array | None
    ) -> tuple[mx.array, mx.array, mx.array, mx.array, mx.array]:
        """From the attention to the experts: stream, their input [B*n, H] float32, class, weight, router state."""
        residual = self.mlp.res_scale(self.attn.self_attn.o_proj(h), residual)
        x = self.mlp.input_norm(residual).reshape(-1, residual.shape[-1])
        return residual, x, *self.mlp.zaya_block.router(x, router_state)


class ZayaModel(nn.Module):
    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args = args
        self.embed_tokens = nn.Embedding(args.vocab_size, args.hidden_size)
        self.layers = [Block(args, i) for i in range(args.num_layers)]
        self.res_scale = ResidualScale(args.hidden_size)
        self.final_norm = nn.RMSNorm(args.hidden_size, args.norm_eps)

    def __call__(self, h: mx.array, cache: Sequence[CCACache]) -> mx.array:
        """Embeddings [B, n, H] -> normed final states [B, n, H]. The residual stream is float32 throughout."""
        n = h.shape[1]
        first, cpu = cache[0], on_cpu()
        rotary = Rotary(self.args, first.offset, n, on_cpu=cpu)
        step = Step(rotary, first.make_mask(n), first.pad_mask(n), h.dtype, cpu)
        residual: mx.array | None = None
        router_state: mx.array | None = None
        for block, block_cache in zip(self.layers, cache, strict=True):
            h, residual, router_state = block(h, residual, router_state, step, block_cache)
        return self.final_norm(self.res_scale(h, residual)).astype(step.dtype)


class Model(nn.Module):
    """inputs [B, n] of token ids -> logits [B, n, vocab] in float32."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = ZayaModel(args)
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(
        self,
        inputs: mx.array,
        cache: Sequence[CCACache] | None = None,
        input_embeddings: mx.array | None = None,
    ) -> mx.array:
        h = self.model.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        h = self.model(h, cache if cache is not None else self.make_cache())
        logits = self.model.embed_tokens.as_linear(h) if self.args.tie_word_embeddings else self.lm_head(h)
        return logits.astype(mx.float32)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def make_cache(self) -> list[CCACache]:
        """An empty cache for each layer; it takes the batch size of its first input."""
        return [CCACache() for _ in self.layers]

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of cache that a row of so many tokens needs, all layers together."""
        dtype = self.dtype
        return kv_bytes_per_token(self.args, dtype) * tokens + state_bytes(self.args, dtype)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the activations between sub-layers, and so of the cache."""
        qkv = self.layers[0].attn.self_attn.qkv
        return (qkv.scales if "scales" in qkv else qkv.weight).dtype

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """A checkpoint's tensors as parameters of this model; see `engine.zaya.tensors.convert`."""
        return convert(self.args, weights)

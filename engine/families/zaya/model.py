"""The ZAYA1 language model in mlx-lm's model protocol, with what makes it see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten

from engine.errors import RequestError
from engine.families.zaya import masks
from engine.families.zaya.attention import CCA, Rotary, attend, attend_to_bytes
from engine.families.zaya.cache import CCACache, kv_bytes_per_token, state_bytes
from engine.families.zaya.config import ImageMask, ModelArgs
from engine.families.zaya.decode import Decoder
from engine.families.zaya.lora import ImageRows
from engine.families.zaya.moe import MoE
from engine.families.zaya.pages import ZayaRows
from engine.families.zaya.tensors import convert
from engine.mlx import eight_bits
from engine.mlx.cpu import on_cpu
from engine.mlx.model import StepWeights
from engine.vision.tower import VisionTower


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
    """What all layers share in one forward pass of n tokens: see `CCACache.make_mask` and `pad_mask`.

    reads_bytes  keys and values in 8 bits are multiplied as they are; else they are made numbers first.
    images       None where there is no image token: then nothing about images is computed.
    """

    rotary: Rotary
    mask: mx.array | str | None
    pad_mask: mx.array | None
    dtype: mx.Dtype
    on_cpu: bool
    reads_bytes: bool
    images: ImageRows | None


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
        attention = self.attn.self_attn
        residual, x = self.enter(h, residual, step)
        before = cache.fetch_tail(h.shape[0], args.qk_width + args.value_width, step.dtype)
        added = None
        if step.images is not None and attention.qkv_lora is not None:
            added = attention.qkv_lora(x, cache.fetch_last_input(x.shape[0], x.shape[2], x.dtype), step.images)
        q, k, v, latents = attention.project(x, before, step.rotary, added)
        cache.update_tail(latents, x if attention.qkv_lora is not None else None)
        cache.append(k, v)
        if step.reads_bytes and cache.kv_bits is not None:
            h = attend_to_bytes(q, *cache.fetch_bytes(), step.mask)
        else:
            h = attend(q, *cache.fetch(k.dtype), step.mask, on_cpu=step.on_cpu)
        if step.on_cpu:
            mx.async_eval(h)  # the experts will wait for it there: let it run while Python writes on
        residual, x, choice, weight, router_state = self.leave(h, residual, router_state, step.images)
        h = self.mlp.zaya_block(x, choice, weight, step.dtype, step.images).reshape(residual.shape)
        return h, residual, router_state

    def enter(self, h: mx.array, residual: mx.array | None, step: Step) -> tuple[mx.array, mx.array]:
        """Up to the attention: the stream and the attention's input, padding zeroed."""
        residual = self.attn.res_scale(h, residual)
        x = self.attn.input_norm(residual).astype(step.dtype)
        if step.pad_mask is not None:
            # Selected, not multiplied: whatever padding computes, it must not reach a real token.
            x = mx.where(step.pad_mask[..., None], x, mx.zeros((), x.dtype))
        return residual, x

    def leave(
        self, h: mx.array, residual: mx.array, router_state: mx.array | None, images: ImageRows | None
    ) -> tuple[mx.array, mx.array, mx.array, mx.array, mx.array]:
        """From the attention to the experts: stream, their input [B*n, H] float32, class, weight, router state."""
        attention = self.attn.self_attn
        out = attention.o_proj(h)
        if images is not None and attention.o_lora is not None:
            out = out + attention.o_lora(h.reshape(-1, h.shape[-1]), images).reshape(out.shape)
        residual = self.mlp.res_scale(out, residual)
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

    def __call__(self, h: mx.array, cache: Sequence[CCACache], image_mask: mx.array | None = None) -> mx.array:
        """Embeddings [B, n, H] -> normed final states [B, n, H]. The residual stream is float32 throughout.

        image_mask and what is raised: see `Model`.
        """
        step = self._step(h, cache[0], image_mask)
        residual: mx.array | None = None
        router_state: mx.array | None = None
        for block, block_cache in zip(self.layers, cache, strict=True):
            h, residual, router_state = block(h, residual, router_state, step, block_cache)
        return self.final_norm(self.res_scale(h, residual)).astype(step.dtype)

    def _step(self, h: mx.array, cache: CCACache, image_mask: mx.array | None) -> Step:
        n, cpu = h.shape[1], on_cpu()
        cache.adopt(h.shape[0])
        rotary = Rotary(self.args, cache.offset, n, on_cpu=cpu)
        mask, images, how = cache.make_mask(n), None, self.args.image_mask
        if image_mask is not None or (n > 1 and any(cache.images_end)):
            image = self._image_tokens(image_mask, cache, n)
            if image.any():
                images = ImageRows.find(image.reshape(-1))
                if how != "causal":
                    seen = masks.groups(image, cache.columns(n), how)
                    mask = masks.with_groups(cache.mask_array(n), *seen)
        # Products of bytes are good for few queries; MLX's run one by one on CUDA.
        reads_bytes = n == 1 and (cpu or mx.metal.is_available()) and eight_bits.groups_fit(self.args.head_dim)
        return Step(rotary, mask, cache.pad_mask(n), h.dtype, cpu, reads_bytes, images)

    def _image_tokens(self, image_mask: mx.array | None, cache: CCACache, n: int) -> np.ndarray:
        """Which of the next n tokens are an image's, [B, n]; noted in the cache. ValueError: see `Model`."""
        shape = (cache.batch_size, n)
        image = np.zeros(shape, bool) if image_mask is None else np.array(image_mask).astype(bool)
        if image.shape != shape:
            raise ValueError(f"image_mask is {list(image.shape)}, but there are {list(shape)} tokens")
        for b, (first, end) in enumerate(cache.columns(n)):
            image[b, :first] = image[b, end:] = False  # padding may be any token
            start = cache.size() - cache.left_padding[b] + first
            masks.refuse_split(image[b, first:end], start, cache.images_end[b], self.args.image_mask)
            if image[b].any():
                cache.images_end[b] = start + int(np.flatnonzero(image[b, first:end])[-1]) + 1
        return image


class Model(nn.Module):
    """inputs [B, n] of token ids -> logits [B, n, vocab] in float32.

    image_mask [B, n] of booleans tells the image tokens; None, or none true: all is text, and costs what text costs.
    Vision-LoRA and the mask that the configuration names apply to them (see `lora` and `masks` beside this); their
    embeddings come with `input_embeddings`, as `embed` makes them.

    Raises ValueError: image_mask has another shape, or the tokens begin inside a range that `unsplittable` gives.

    kv_bits: 8 to keep keys and values in as many bits, None as they come; to be set before any cache is made.

    Implements `engine.mlx.model.SeeingModel`.
    """

    max_rows: int | None = None
    image_masks: tuple[str, ...] = get_args(ImageMask)
    takes_padding = True

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.args = args
        self.model_type = args.model_type
        self.model = ZayaModel(args)
        self.vision_tower: VisionTower | None = VisionTower(args.vision) if args.vision is not None else None
        self.kv_bits: int | None = None
        self._decoder: Decoder | None = None
        self._note: str | None = None
        if not args.tie_word_embeddings:
            self.lm_head = nn.Linear(args.hidden_size, args.vocab_size, bias=False)

    def __call__(
        self,
        inputs: mx.array,
        cache: Sequence[CCACache] | Sequence[ZayaRows] | None = None,
        input_embeddings: mx.array | None = None,
        image_mask: mx.array | None = None,
    ) -> mx.array:
        if cache is not None and isinstance(cache[0], ZayaRows):
            assert self._decoder is not None, "it made these rows"
            return self._decoder.run(inputs[:, 0], cache[0])[:, None].astype(mx.float32)
        h = self.model.embed_tokens(inputs) if input_embeddings is None else input_embeddings
        h = self.model(h, self.make_cache() if cache is None else cast(Sequence[CCACache], cache), image_mask)
        return self.head(h).astype(mx.float32)

    def head(self, h: mx.array) -> mx.array:
        """Final states [..., H] -> logits [..., V] in the model's type."""
        logits: mx.array = self.model.embed_tokens.as_linear(h) if self.args.tie_word_embeddings else self.lm_head(h)
        return logits

    @property
    def notes(self) -> tuple[str, ...]:
        """See `engine.mlx.model.TextModel.notes`."""
        return () if self._note is None else (self._note,)

    def use_kernels(self) -> None:
        """From now on rows that decode together do so by kernels of our own, and many tokens go through the experts by
        them; for sizes that `decode.fits`."""
        self._decoder = Decoder(self)
        for block in self.layers:
            block.mlp.zaya_block.by_kernels = True

    def use_no_kernels(self, note: str | None = None) -> None:
        """From now on MLX's operations do it all; the note says why, for people."""
        self._decoder, self._note = None, note
        for block in self.layers:
            block.mlp.zaya_block.by_kernels = False

    def embed(self, ids: mx.array, features: mx.array | None = None) -> tuple[mx.array, mx.array | None]:
        """ids [B, n] and the features [M, H] of their images, row by row -> embeddings [B, n, H], image_mask [B, n].

        The M image tokens get the features in order; image_mask is None if M is 0. Waits for the ids.
        Raises RequestError if there are more or fewer features than image tokens.
        """
        image = np.array(ids) == self.args.image_token_id if self.args.vision else np.zeros(ids.shape, bool)
        found, given = int(image.sum()), 0 if features is None else features.shape[0]
        if found != given:
            raise RequestError(
                f"The prompt has {found} image tokens, but its images make {given}. Each image token of a prompt "
                "stands for one feature of an image that comes with it."
            )
        h = self.model.embed_tokens(ids)  # [B, n, H]
        if not found or features is None:
            return h, None
        rows = h.reshape(-1, h.shape[-1])
        source = np.arange(image.size)
        source[image.reshape(-1)] = image.size + np.arange(found)
        rows = mx.concatenate([rows, features.astype(h.dtype)])[mx.array(source.astype(np.int32))]
        return rows.reshape(h.shape), mx.array(image)

    def unsplittable(self, ids: Sequence[int]) -> list[tuple[int, int]]:
        """Half-open ranges of a whole prompt's tokens that one pass must hold whole, in order."""
        image = [token == self.args.image_token_id for token in ids]
        return masks.spans(image, self.args.image_mask)

    def set_image_mask(self, how: ImageMask) -> None:
        """Read images another way than `config.json` says. Caches made before are not to be used any more."""
        self.args = self.model.args = replace(self.args, image_mask=how)

    @property
    def layers(self) -> list[Block]:
        return self.model.layers

    def make_cache(self, rows: int = 1) -> list[CCACache]:
        """An empty cache for each layer; it takes the batch size of its first input, whatever `rows` says."""
        return [CCACache(kv_bits=self.kv_bits) for _ in self.layers]

    def copy_cache(self, caches: Sequence[CCACache]) -> list[CCACache]:
        """The same row's memory again."""
        return [cache.extract(0) for cache in caches]

    def batch_cache(self, caches: Sequence[CCACache], places: Sequence[int]) -> Sequence[CCACache] | Sequence[ZayaRows]:
        """See `engine.mlx.model.TextModel.batch_cache`."""
        if self._decoder is not None:
            return [ZayaRows.of(self.args, self.dtype, caches, places, kv_bits=self.kv_bits)]
        if caches[0].batch_size == 1:
            return [CCACache.merge([cache] * len(places)) for cache in caches]
        for cache in caches:
            cache.filter(places)
        return caches

    def cache_bytes(self, tokens: int) -> int:
        """Bytes of cache that a row of so many tokens needs, all layers together."""
        dtype = self.dtype
        return kv_bytes_per_token(self.args, dtype, self.kv_bits) * tokens + state_bytes(self.args, dtype)

    @property
    def ragged(self) -> bool:
        """See `engine.mlx.model.TextModel.ragged`: rows in pages are."""
        return self._decoder is not None

    @property
    def vocab_size(self) -> int:
        """Numbers in the logits of a token."""
        return self.args.vocab_size

    @property
    def weight_bytes(self) -> int:
        """Memory of all parameters."""
        return sum(parameter.nbytes for _, parameter in tree_flatten(self.parameters()))

    @property
    def step_weights(self) -> StepWeights:
        """See `engine.mlx.model.TextModel.step_weights`; the LoRA is for images, and the skip class has no weights."""
        read = {
            name: parameter.nbytes
            for name, parameter in tree_flatten(self.parameters())
            if not name.startswith("vision_tower") and "lora" not in name
        }
        experts = sum(size for name, size in read.items() if ".experts." in name)
        return StepWeights(sum(read.values()) - experts, experts, classes=self.args.num_experts + 1)

    @property
    def dtype(self) -> mx.Dtype:
        """Type of the activations between sub-layers, and so of the cache."""
        embed = self.model.embed_tokens
        dtype = (embed.scales if "scales" in embed else embed.weight).dtype
        # Some codes have exponents for scales; MLX then makes bfloat16 of them.
        return dtype if mx.issubdtype(dtype, mx.floating) else mx.bfloat16

    def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
        """A checkpoint's tensors as parameters of this model; see `engine.families.zaya.tensors.convert`."""
        return convert(self.args, weights)

"""Kernels written once for CUDA and Metal.

A body is the text of a kernel's function in the part of C++ that both share, with these words for the rest:

    GLOBAL, BLOCK, LOCAL before a pointer into the memory of the device, a block, a thread: `const GLOBAL T* row = x`
    BLOCK_ARRAY(t, a, n) an array shared by the threads of a block
    BARRIER()            waits for all threads of the block
    DEVICE               before a function of the helpers
    UNROLL(n)            before a loop: so many turns at once, whose reads are then on their way together
    THREAD               which thread of the block this is; blocks have one dimension
    BLOCK_X, _Y, _Z      which block of the grid this is; BLOCKS_X: of how many
    LANE, WARP           THREAD % 32, THREAD / 32
    warp_sum(x), warp_max(x), warp_xor(x, mask)    over 32 threads, all of which must call them; float
    block_sum(x, parts, THREAD, THREADS)           over all threads; parts has a float for each warp
    load8(p, to)         eight neighbours from memory, aligned to 16 bytes, as float; store8(from, p) the other way
    fetch8(to, from)     has eight neighbours brought into a block's array while the thread goes on; `fetches_asked()`
                         ends a group of them, `await_fetches(n)` waits for all groups but the last n: those that this
                         very thread asked for; `fetched8(p, to)` reads them there, aligned to 16 bytes, as float
    BF16, BYTE           types; a type's name converts a value: T(x), float(x). No others but the language's
    COUNTER              a counter of a block: `clear(p)` and `counted(p)` by one thread, `count(p)` by any at once
    inverse_sqrt, exponential, power2, logarithm, cosine, sine, error_function

Its inputs, outputs and constants have their names, and `NAME_shape[i]` is how long an input is. Inputs are contiguous.
A small input is not behind a `GLOBAL` pointer on Metal: index it by its own name.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import mlx.core as mx

from engine.mlx.kernels import compiled
from engine.mlx.kernels.preludes import CUDA, METAL, Prelude


@dataclass(frozen=True)
class Kernel:
    """A kernel by its body; `helpers` are functions that it calls.

    On CUDA it is compiled once on a machine (`compiled`), where that can be done; else by MLX, in each process, when it
    is run.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    body: str
    helpers: str = ""

    def __call__(
        self,
        *inputs: mx.array,
        blocks: tuple[int, int, int],
        threads: int,
        outputs: Sequence[tuple[tuple[int, ...], mx.Dtype]],
        constants: Mapping[str, int | mx.Dtype],
    ) -> list[mx.array]:
        """The outputs, of these shapes and types; what the body does not write of them is anything.

        `constants` are known to the compiler: each set of values is another kernel. Raises what the compiler raises if
        it refuses the kernel; MLX's does when the kernel is run.
        """
        words = prelude()
        if words is CUDA and compiled.trouble() is None:
            text = compiled.Text(
                self.name,
                tuple((name, array.dtype, array.ndim) for name, array in zip(self.inputs, inputs, strict=True)),
                tuple((name, dtype) for name, (_, dtype) in zip(self.outputs, outputs, strict=True)),
                tuple(constants.items()),
                self.helpers,
                self.body,
            )
            return compiled.run(text, inputs, blocks=blocks, threads=threads, outputs=outputs)
        built: Any = _built(self, words)
        x, y, z = blocks
        return built(
            inputs=list(inputs),
            template=list(constants.items()),
            grid=(x * threads, y, z),
            threadgroup=(threads, 1, 1),
            output_shapes=[shape for shape, _ in outputs],
            output_dtypes=[dtype for _, dtype in outputs],
        )


def wanted() -> bool:
    """Whether kernels are to be used here: on CUDA unless RSA_KERNELS is 0; on Metal, where they have not been run yet,
    only if it is 1."""
    setting = os.environ.get("RSA_KERNELS")
    if mx.default_device().type == mx.DeviceType.cpu:
        return False
    return setting == "1" if mx.metal.is_available() else setting != "0"


def slow_start() -> tuple[str, ...]:
    """What makes processes that use kernels start slower than they could, a sentence for people each."""
    why = compiled.trouble() if wanted() and prelude() is CUDA else None
    return () if why is None else (f"each start takes half a minute longer: kernels of our own are not kept ({why})",)


def prelude() -> Prelude:
    """The words of this machine's GPU."""
    return METAL if mx.metal.is_available() else CUDA


@cache
def _built(kernel: Kernel, words: Prelude) -> Any:
    build = mx.fast.metal_kernel if words is METAL else mx.fast.cuda_kernel
    return build(
        name=kernel.name,
        input_names=list(kernel.inputs),
        output_names=list(kernel.outputs),
        header=words.header + kernel.helpers,
        source=words.opening + kernel.body,
    )

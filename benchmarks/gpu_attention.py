"""Attention on a GPU against PyTorch's dense attention and compiled FlexAttention, in one run.

    python benchmarks/gpu_attention.py --out DIR [--minutes 8] [--shapes WORD ...]
    TRITON_INTERPRET=1 python benchmarks/gpu_attention.py --out DIR --tiny

For each shape, forward and backward in bfloat16:

    ours      fovea.attention, backend triton; ``kernel`` is the backend called alone, ``whole`` the operator
    ordered   the same with tokens kept tile by tile (fovea.kernels.tile_order), where the pattern falls on whole tiles;
              ``permute``: bringing query, key and value there and the output back, and after how many layers of one
              model that pays
    cudnn, flash
              scaled_dot_product_attention without a mask: dense, of all pairs (causal where the pattern is)
    masked    scaled_dot_product_attention with a boolean mask, where the mask is small
    flex      compiled FlexAttention with the block mask that fovea computes from the pattern's tables; ``kernel`` on
              tensors with heads before tokens, ``whole`` from and to heads last; building mask and compiling told apart

``useful`` counts the pairs of the pattern: 4 operations a pair and channel forward, 2.5 times as many backward. Errors
are those of sampled rows against float64: of the output, and of the gradient of the query. Then Taylor attention
against causal softmax by length, and decoding. ``floors`` are the rate of a large matrix product and the bandwidth of a
copy in the same run: no kernel goes beyond them. ``figures`` puts what was measured beside the bars that the kernels
are held to. Nothing is built beforehand: kernels are compiled by Triton and PyTorch as the run goes, and so that the
whole takes less than eight minutes each shape gets its share of the time left; what did not fit is named in the
result. ``--tiny`` runs every part at sizes of a few tokens on the CPU: its times mean nothing and its file says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import fovea
from fovea.kernels.problem import describe
from fovea.kernels.registry import backends
from fovea.kernels.tile_order import TileOrder
from fovea.patterns import Blocks, Causal, GridPattern, Neighborhood, Pattern, Window

FILE = "gpu_attention.json"
SAMPLES = 32
SLEEP = 2_000_000
"""Cycles that the device sleeps while Python starts the kernels: about a millisecond."""

MASKED = 4096
"""Tokens up to which the mask of all pairs is built."""


@dataclass(frozen=True)
class Shape:
    """One attention: pattern, grid, heads and their width."""

    name: str
    pattern: Pattern
    grid: tuple[int, ...]
    heads: int
    head_dim: int
    kv_heads: int | None = None
    batch: int = 1
    bias: bool = False
    tile: tuple[int, ...] | None = None
    """Tiles of tokens on which the pattern falls whole."""

    @property
    def flops(self) -> float:
        """Useful floating-point operations of the forward pass."""
        return 4.0 * self.pattern.pairs(self.grid) * self.batch * self.heads * self.head_dim

    @property
    def dense_flops(self) -> float:
        """Those of attention over all pairs."""
        return 4.0 * prod(self.grid) ** 2 * self.batch * self.heads * self.head_dim


def neighborhood(
    name: str, grid: tuple[int, ...], window: Any, stride: Any, heads: int, head_dim: int = 128, tile: Any = None
) -> Shape:
    return Shape(name, Neighborhood(window, stride), grid, heads, head_dim, tile=tile)


SHAPES = (
    neighborhood("3d strided", (30, 48, 80), (18, 24, 24), (16, 8, 8), 24, tile=(2, 8, 8)),
    neighborhood("2d strided", (256, 256), (80, 80), (16, 16), 24, tile=(16, 8)),
    neighborhood("3d sliding", (30, 48, 80), (18, 24, 24), (1, 1, 1), 24),
    neighborhood("2d sliding", (256, 256), (80, 80), (1, 1), 24),
    Shape("vision", Neighborhood(7), (56, 56), 4, 32, batch=64),
    Shape("vision dilated", Neighborhood(7, 1, 8), (56, 56), 4, 32, batch=64),
    Shape("windows 7", Window(7), (56, 56), 3, 32, batch=64, bias=True),
    Shape("windows 16", Window(16), (64, 64), 6, 32, batch=16, bias=True),
    Shape("power", Blocks.power(256), (131072,), 32, 128, kv_heads=8),
    neighborhood("1d strided", (32768,), 2048, 256, 24, tile=(128,)),
    neighborhood("1d sliding", (32768,), 2048, 1, 24),
    neighborhood("3d flat strided", (16, 44, 80), (16, 24, 16), (1, 8, 16), 24, tile=(4, 4, 8)),
    neighborhood("3d flat sliding", (16, 44, 80), (16, 24, 16), (1, 1, 1), 24),
    neighborhood("1d strided 1 head", (32768,), 2048, 256, 1),
    neighborhood("1d sliding 1 head", (32768,), 2048, 1, 1),
)
"""Those that the bars are about first."""

TINY = (
    neighborhood("1d strided", (24,), 8, 4, 1, 16),
    neighborhood("2d sliding", (3, 5), (3, 3), (1, 1), 1, 16),
    neighborhood("3d strided", (2, 4, 6), (2, 2, 6), (1, 2, 2), 1, 16, tile=(1, 2, 2)),
    Shape("windows 2", Window(2), (2, 3), 1, 16, bias=True),
    Shape("power", Blocks.power(16, 1), (33,), 2, 16, kv_heads=1),
)
LENGTHS = (2048, 8192, 32768, 131072)
TINY_LENGTHS = (33,)


class Clock:
    """Times calls on a device, for at most so long each, and knows when the whole run must end.

    Attributes:
        device: what is measured.
        each: seconds that a call is repeated for, after one that is not counted; 0 for one call alone.
        end: when nothing new is begun.
        pause: when nothing more is begun of the part that runs now, so that those behind it get their time.
    """

    def __init__(self, device: torch.device, minutes: float, each: float) -> None:
        self.device, self.each = device, each
        self.end = self.pause = time.monotonic() + 60 * minutes

    @property
    def over(self) -> bool:
        return time.monotonic() > self.end

    @property
    def late(self) -> bool:
        return time.monotonic() > self.pause

    def share(self, parts: int) -> None:
        """Give the next part its share of the time left, of which ``parts`` parts are to be served."""
        now = time.monotonic()
        self.pause = now + max(0.0, self.end - now) / parts

    def seconds(self, call: Callable[[], Any], *, alone: bool = True) -> float:
        """Median of repeated calls, of one where it is long; caches of the device are warm. ``alone`` leaves out what
        Python takes to start the kernels, as when they follow others: the device is kept busy until they wait."""
        if self.each:
            call()
            self.wait()
        began, found = time.monotonic(), []
        while not found or (len(found) < 50 and time.monotonic() - began < self.each):
            found.append(self._once(call, alone=alone))
        return float(np.median(found))

    def _once(self, call: Callable[[], Any], *, alone: bool) -> float:
        if self.device.type != "cuda":
            began = time.perf_counter()
            call()
            return time.perf_counter() - began
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        if alone:
            torch.cuda._sleep(SLEEP)
        else:
            self.wait()
        first.record()
        call()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def peak(self, call: Callable[[], Any]) -> int | None:
        """Bytes that a call takes beyond what is held before it."""
        if self.device.type != "cuda":
            return None
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        call()
        self.wait()
        return torch.cuda.max_memory_allocated(self.device) - before


@dataclass(frozen=True)
class Inputs:
    """Tensors of a shape, heads last."""

    query: Tensor
    key: Tensor
    value: Tensor
    grad: Tensor
    bias: Tensor | None

    @classmethod
    def draw(cls, shape: Shape, device: torch.device, dtype: torch.dtype) -> Inputs:
        source = torch.Generator(device).manual_seed(0)

        def draw(*size: int) -> Tensor:
            return torch.randn(size, generator=source, device=device).to(dtype)

        kv_heads = shape.kv_heads or shape.heads
        row = (shape.batch, *shape.grid)
        bias = None
        if shape.bias:
            assert isinstance(shape.pattern, GridPattern)
            bias = draw(shape.heads, *shape.pattern.bias_shape(shape.grid))
        query, grad = (draw(*row, shape.heads, shape.head_dim) for _ in range(2))
        key, value = (draw(*row, kv_heads, shape.head_dim) for _ in range(2))
        return cls(query, key, value, grad, bias)

    def heads_first(self, *, dense: bool = True) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Query, key, value and the gradient as ``[batch, heads, tokens, channels]``."""
        found = [t.flatten(1, -3).transpose(1, 2) for t in (self.query, self.key, self.value, self.grad)]
        return tuple(t.contiguous() if dense else t for t in found)  # type: ignore[return-value]


Passes = dict[str, float]


def passes(
    clock: Clock, call: Callable[..., Tensor], tensors: list[Tensor], grad: Tensor, backward: bool, *, alone: bool
) -> Passes:
    """Seconds of the forward and of the backward pass of a differentiable call."""
    found = {"forward": clock.seconds(lambda: call(*tensors), alone=alone)}
    if backward:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        out = call(*leaves)
        found["backward"] = clock.seconds(
            lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True), alone=alone
        )
    return found


def ours(shape: Shape, x: Inputs, clock: Clock) -> dict[str, Any]:
    backend = backends()["triton"]
    arguments = (x.query, x.key, x.value, x.bias, None, None)
    problem = describe(shape.pattern, *arguments, None)
    out, lse = backend.forward(problem, *arguments)
    back = problem.but(grad=True)
    kernel = {
        "forward": clock.seconds(lambda: backend.forward(problem, *arguments)),
        "backward": clock.seconds(
            lambda: backend.backward(back, x.grad, None, *arguments[:3], out, lse, *arguments[3:])
        ),
    }

    def call(query: Tensor, key: Tensor, value: Tensor, *bias: Tensor) -> Tensor:
        return fovea.attention(query, key, value, shape.pattern, bias=bias[0] if bias else None, backend="triton")

    tensors = [x.query, x.key, x.value] + ([] if x.bias is None else [x.bias])
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    grads = torch.autograd.grad(call(*leaves), leaves, x.grad)
    work, grad_work = backend.work(problem), backend.work(back)
    return {
        "kernel": kernel,
        "whole": passes(clock, call, tensors, x.grad, True, alone=False),
        "error": errors(shape, x, out, grads[0]),
        "peak_bytes": clock.peak(lambda: torch.autograd.grad(call(*leaves), leaves, x.grad)),
        "padding": {"forward": work.pairs / problem_pairs(shape), "backward": grad_work.pairs / problem_pairs(shape)},
        "tile": work.tile,
    }


def problem_pairs(shape: Shape) -> int:
    """Pairs of the pattern over batch entries and heads."""
    return shape.pattern.pairs(shape.grid) * shape.batch * shape.heads


def ordered(shape: Shape, x: Inputs, clock: Clock) -> dict[str, Any]:
    """Ours with tokens kept in the order of their tiles."""
    if shape.tile is None:
        raise RuntimeError("the pattern does not fall on whole tiles")
    order = TileOrder.of(shape.pattern, shape.grid, shape.tile)
    query, key, value, grad = (order.sequence(t) for t in (x.query, x.key, x.value, x.grad))
    backend = backends()["triton"]
    arguments = (query, key, value, None, None, None)
    problem = describe(order.pattern, *arguments, None)
    back = problem.but(grad=True)
    out, lse = backend.forward(problem, *arguments)
    kernel = {
        "forward": clock.seconds(lambda: backend.forward(problem, *arguments)),
        "backward": clock.seconds(
            lambda: backend.backward(back, grad, None, *arguments[:3], out, lse, None, None, None)
        ),
    }
    permute = clock.seconds(lambda: [order.sequence(t) for t in (x.query, x.key, x.value)] and order.grid(out))
    return {"kernel": kernel, "permute": permute, "error": errors(shape, x, order.grid(out), None)}


def layers_that_pay(contestants: dict[str, Any]) -> float | None:
    """After how many layers of a model, forward, permuting tokens once is faster than not at all; none where never."""
    times = [contestants.get(name, {}).get("kernel", {}).get("forward") for name in ("ours", "ordered")]
    if None in times or times[0] <= times[1]:
        return None
    return contestants["ordered"]["permute"] / (times[0] - times[1])


def dense(shape: Shape, x: Inputs, clock: Clock, kind: str) -> dict[str, Any]:
    """PyTorch's attention with one of its kernels."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    kinds = {
        "cudnn": [SDPBackend.CUDNN_ATTENTION],
        "flash": [SDPBackend.FLASH_ATTENTION],
        "masked": [SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    }
    if clock.device.type != "cuda":
        kinds = {"flash": [SDPBackend.FLASH_ATTENTION, SDPBackend.MATH], "masked": [SDPBackend.MATH]}
    if kind not in kinds:
        raise RuntimeError("needs CUDA")
    mask = None
    if kind == "masked":
        mask = torch.from_numpy(np.asarray(shape.pattern.mask(shape.grid))).to(clock.device)
    causal = mask is None and isinstance(shape.pattern, Blocks | Causal)

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return functional.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, is_causal=causal, enable_gqa=shape.kv_heads is not None
        )

    with sdpa_kernel(kinds[kind], set_priority=True):
        *tensors, grad = x.heads_first()
        kernel = passes(clock, call, tensors, grad, True, alone=True)
        *tensors, grad = x.heads_first(dense=False)
        # These kernels take heads last as they are; the difference is told for the forward pass alone.
        whole = passes(clock, call, tensors, grad, False, alone=False)
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        peak = clock.peak(lambda: torch.autograd.grad(call(*leaves), leaves, grad))
    return {"kernel": kernel, "whole": whole, "peak_bytes": peak, "causal": causal}


def flex(shape: Shape, x: Inputs, clock: Clock) -> dict[str, Any]:
    """FlexAttention under the pattern."""
    from torch.nn.attention.flex_attention import flex_attention

    if shape.bias:
        raise RuntimeError("takes no relative bias here")
    cuda = clock.device.type == "cuda"
    torch._dynamo.reset()  # or after eight shapes it would no longer compile
    began = time.monotonic()
    mask = shape.pattern.block_mask(shape.grid, device=clock.device)
    built = time.monotonic() - began
    attend = torch.compile(flex_attention, dynamic=False) if cuda else flex_attention

    def call(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = attend(query, key, value, block_mask=mask, enable_gqa=shape.kv_heads is not None)
        assert isinstance(out, Tensor)
        return out

    *tensors, grad = x.heads_first()
    began = time.monotonic()
    if cuda:
        leaves = [tensor.detach().requires_grad_() for tensor in tensors]
        torch.autograd.grad(call(*leaves), leaves, grad)
    out = call(*tensors)
    clock.wait()
    compiled = time.monotonic() - began
    kernel = passes(clock, call, tensors, grad, cuda, alone=True)
    *tensors, grad = x.heads_first(dense=False)
    whole = passes(
        clock, lambda *t: call(*t).transpose(1, 2).contiguous(), tensors, grad.transpose(1, 2), cuda, alone=False
    )
    leaves = [tensor.detach().requires_grad_(cuda) for tensor in tensors]
    peak = clock.peak(lambda: torch.autograd.grad(call(*leaves), leaves, grad))
    found = {
        "kernel": kernel,
        "whole": whole,
        "peak_bytes": peak,
        "mask_seconds": built,
        "first_call_seconds": compiled,
    }
    return found | {"error": errors(shape, x, out.transpose(1, 2).unflatten(1, shape.grid), None)}


def errors(shape: Shape, x: Inputs, out: Tensor, grad_query: Tensor | None) -> dict[str, float]:
    """Relative error of sampled rows of the output and of the query's gradient, against float64 on the CPU."""
    chosen = np.random.default_rng(0).choice(prod(shape.grid), min(SAMPLES, prod(shape.grid)), replace=False)
    group = shape.heads // (shape.kv_heads or shape.heads)
    wanted: dict[str, list[Tensor]] = {"out": [], "grad_query": []}
    found: dict[str, list[Tensor]] = {"out": [], "grad_query": []}
    for sample in chosen.tolist():
        at = tuple(int(c) for c in np.unravel_index(sample, shape.grid))
        head, batch = sample % shape.heads, sample % shape.batch
        seen = torch.from_numpy(np.asarray(shape.pattern.keys(at, shape.grid))).reshape(shape.grid).nonzero()
        places = tuple(seen.T.to(x.key.device))
        k, v = (t[batch][(*places, head // group)].double().cpu() for t in (x.key, x.value))
        q, do = (t[(batch, *at, head)].double().cpu() for t in (x.query, x.grad))
        scale = shape.head_dim**-0.5
        logits = k @ q * scale
        if x.bias is not None:
            assert isinstance(shape.pattern, GridPattern)
            spans = shape.pattern.spans(shape.grid)
            sizes = [shape.pattern.offsets(axis, n, n)[0] for axis, n in enumerate(shape.grid)]
            offsets = [
                (seen[:, axis] - int(span.position[at[axis]])) // span.step - low
                for axis, (span, low) in enumerate(zip(spans, sizes, strict=True))
            ]
            logits = logits + x.bias[head].double().cpu()[tuple(offsets)]
        weights = logits.softmax(0)
        exact = weights @ v
        wanted["out"].append(exact)
        found["out"].append(out[(batch, *at, head)].double().cpu())
        if grad_query is not None:
            wanted["grad_query"].append(scale * (weights * (v @ do - exact @ do)) @ k)
            found["grad_query"].append(grad_query[(batch, *at, head)].double().cpu())
    rows = {name: (torch.stack(found[name]), torch.stack(wanted[name])) for name in wanted if wanted[name]}
    return {name: float((mine - theirs).norm() / theirs.norm()) for name, (mine, theirs) in rows.items()}


def attention(shape: Shape, clock: Clock, dtype: torch.dtype) -> dict[str, Any]:
    """All contestants on one shape."""
    x = Inputs.draw(shape, clock.device, dtype)
    contestants: dict[str, Callable[[], dict[str, Any]]] = {
        "ours": lambda: ours(shape, x, clock),
        "ordered": lambda: ordered(shape, x, clock),
        "flex": lambda: flex(shape, x, clock),
        "cudnn": lambda: dense(shape, x, clock, "cudnn"),
        "flash": lambda: dense(shape, x, clock, "flash"),
    }
    if prod(shape.grid) <= MASKED:
        contestants["masked"] = lambda: dense(shape, x, clock, "masked")
    found: dict[str, Any] = {
        "name": shape.name, "pattern": str(shape.pattern), "grid": shape.grid, "heads": shape.heads,
        "kv_heads": shape.kv_heads or shape.heads, "head_dim": shape.head_dim, "batch": shape.batch,
        "bias": shape.bias, "useful_flops": shape.flops, "bound": shape.dense_flops / shape.flops, "contestants": {},
    }  # fmt: skip
    for name, run in contestants.items():
        if clock.late and name != "ours":
            found["contestants"][name] = {"not_run": "out of time"}
            continue
        result = attempt(run)
        for kind in ("kernel", "whole"):
            for direction, seconds in dict(result.get(kind, {})).items():
                result[kind][f"{direction}_tflops"] = (
                    shape.flops * (2.5 if direction == "backward" else 1) / seconds / 1e12
                )
        found["contestants"][name] = result
    found["layers_that_pay"] = layers_that_pay(found["contestants"])
    return found


def attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a contestant gives, or why it could not run."""
    try:
        return run()
    except Exception as error:  # whatever a contestant raises is its result
        return {
            "not_run": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        }
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def taylor(length: int, clock: Clock, dtype: torch.dtype, *, tiny: bool) -> dict[str, Any]:
    """Taylor attention and causal softmax of one length, 16 heads of 64 with 16 features; then one decoding step."""
    from fovea.kernels.taylor import quadratic
    from fovea.kernels.triton.taylor import TaylorState, taylor_attention

    heads, features, dim = (1, 4, 16) if tiny else (16, 16, 64)
    source = torch.Generator(clock.device).manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=source, device=clock.device).to(dtype)

    q, k = (draw(1, length, heads, features) for _ in range(2))
    v, grad = (draw(1, length, heads, dim) for _ in range(2))
    sizes: dict[str, Any] = {"chunk": 32, "block_tokens": 16} if tiny else {}
    found: dict[str, Any] = {
        "length": length, "heads": heads, "features": features, "head_dim": dim,
        "taylor": passes(clock, lambda *t: taylor_attention(*t, **sizes), [q, k, v], grad, True, alone=True),
    }  # fmt: skip
    few = min(length, 512)
    early = [t[:, :few].double().cpu() for t in (q, k, v)]
    exact = quadratic(early[0], early[1], early[2])
    error = (taylor_attention(q, k, v, **sizes)[:, :few].double().cpu() - exact).norm() / exact.norm()
    found["error"] = float(error)
    wide = [draw(1, heads, length, dim) for _ in range(4)]
    found["softmax"] = passes(
        clock,
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        wide[:3],
        wide[3],
        True,
        alone=True,
    )
    state = TaylorState.empty(1, heads, features, dim, clock.device)
    found["taylor"]["step"] = clock.seconds(lambda: state.step(q[:, 0], k[:, 0], v[:, 0]))
    last = wide[0][:, :, -1:]
    found["softmax"]["step"] = clock.seconds(lambda: functional.scaled_dot_product_attention(last, wide[1], wide[2]))
    return found


def decoding(length: int, clock: Clock, dtype: torch.dtype, *, tiny: bool) -> dict[str, Any]:
    """One query at the end of so many keys: PowerAttention, causal attention, and PyTorch's dense attention."""
    heads, kv_heads, dim, size = (2, 1, 16, 16) if tiny else (32, 8, 128, 256)
    q = torch.randn(1, 1, heads, dim, device=clock.device).to(dtype)
    k, v = (torch.randn(1, length, kv_heads, dim, device=clock.device).to(dtype) for _ in range(2))
    found: dict[str, Any] = {"length": length, "heads": heads, "kv_heads": kv_heads, "head_dim": dim}
    for name, pattern in (("power", Blocks.power(size)), ("causal", Causal())):
        found[name] = clock.seconds(lambda pattern=pattern: fovea.attention(q, k, v, pattern, backend="triton"))
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    found["dense"] = clock.seconds(lambda: functional.scaled_dot_product_attention(q, k, v, enable_gqa=True))
    return found


def floors(clock: Clock, dtype: torch.dtype, *, tiny: bool) -> dict[str, Any]:
    """What the device does at best: multiplications of large matrices, and bytes read and written by a copy."""
    side, numbers = (64, 4096) if tiny else (8192, 1 << 28)
    a, b = (torch.randn(side, side, device=clock.device).to(dtype) for _ in range(2))
    source = torch.zeros(numbers, device=clock.device, dtype=torch.float32)
    target = torch.empty_like(source)
    return {
        "matrix_side": side, "matrix_tflops": 2 * side**3 / clock.seconds(lambda: a @ b) / 1e12,
        "copy_bytes": 8 * numbers,
        "copy_gbytes_per_second": 8 * numbers / clock.seconds(lambda: target.copy_(source)) / 1e9,
    }  # fmt: skip


def figures(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What the kernels are held to on an H200 in bfloat16, each with what this run measured, or none."""
    shapes = {found["name"]: found for found in content["attention"] if "contestants" in found}
    rate = content["floors"].get("matrix_tflops")

    def of(shape: str, contestant: str, *keys: str) -> float | None:
        found: Any = shapes.get(shape, {}).get("contestants", {}).get(contestant, {})
        for key in keys:
            found = found.get(key, {}) if isinstance(found, dict) else {}
        return found if isinstance(found, float) else None

    def seconds(shape: str, contestant: str, direction: str = "forward") -> float | None:
        return of(shape, contestant, "kernel", direction)

    def ratio(over: float | None, under: float | None) -> float | None:
        return None if over is None or not under else over / under

    rows: list[tuple[str, str, float | None, float, float | None]] = []
    for shape, least in (("3d strided", 450), ("2d strided", 450), ("2d sliding", 318), ("3d sliding", 190)):
        padding = of(shape, "ours", "padding", "forward")
        aim = 650.0 if "strided" in shape else (None if rate is None or not padding else 0.85 * rate / padding)
        rows.append((f"{shape} forward", "useful TFLOP/s", of(shape, "ours", "kernel", "forward_tflops"), least, aim))
    backward = of("3d strided", "ours", "kernel", "backward_tflops")
    rows.append(("3d strided backward", "useful TFLOP/s", backward, 250, 450))
    for shape in shapes:
        for direction in ("forward", "backward"):
            gain = ratio(seconds(shape, "flex", direction), seconds(shape, "ours", direction))
            if gain is not None:
                rows.append((f"{shape} {direction}", "times faster than compiled FlexAttention", gain, 1.3, 2.0))
    for shape in shapes:
        if "strided" in shape:
            fastest = min((t for n in ("cudnn", "flash") if (t := seconds(shape, n)) is not None), default=None)
            share = ratio(ratio(fastest, seconds(shape, "ours")), shapes[shape]["bound"])
            rows.append((shape, "speed-up over dense attention / bound of the skipped work", share, 0.75, 0.95))
    masked = ratio(seconds("vision", "masked"), seconds("vision", "ours"))
    rows.append(("vision forward", "times faster than dense masked attention", masked, 8, 20))
    if content["tiny"]:
        rows = [(what, unit, None, least, aim) for what, unit, _, least, aim in rows]
    return [
        {"what": what, "unit": unit, "measured": value, "bar": least, "aim": aim,
         "met": None if value is None else value >= least}
        for what, unit, value, least, aim in rows
    ]  # fmt: skip


def machine(device: torch.device) -> dict[str, Any]:
    """What was measured on, and with what."""
    import triton

    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, times mean nothing",
        "torch": torch.__version__, "triton": triton.__version__, "fovea": fovea.__version__, "commit": commit or None,
        "python": platform.python_version(), "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }  # fmt: skip


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".part", delete=False) as file:
        json.dump(content, file, indent=1)
    os.replace(file.name, path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention on a GPU against PyTorch's, in one run.")
    parser.add_argument("--out", type=Path, required=True, help=f"folder that {FILE} is written to")
    parser.add_argument("--minutes", type=float, default=7.5, help="after these nothing new is begun")
    parser.add_argument("--shapes", nargs="*", default=[], help="only shapes whose name holds one of these words")
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"], default="bfloat16")
    parser.add_argument("--tiny", action="store_true", help="a few tokens on the CPU in Triton's interpreter")
    arguments = parser.parse_args()
    missing = backends()["triton"].missing()
    if missing or (arguments.tiny and os.environ.get("TRITON_INTERPRET") != "1"):
        parser.error(missing or "--tiny needs TRITON_INTERPRET=1")
    device = torch.device("cpu" if arguments.tiny else "cuda")
    dtype = getattr(torch, arguments.dtype)
    began = time.monotonic()
    clock = Clock(device, arguments.minutes, 0.0 if arguments.tiny else 0.25)
    words = arguments.shapes
    content: dict[str, Any] = {"machine": machine(device), "dtype": arguments.dtype, "tiny": arguments.tiny}
    content["floors"] = attempt(lambda: floors(clock, dtype, tiny=arguments.tiny))
    content |= {"attention": [], "taylor": [], "decoding": []}
    path = arguments.out / FILE
    shapes = [s for s in (TINY if arguments.tiny else SHAPES) if not words or any(word in s.name for word in words)]
    lengths = TINY_LENGTHS if arguments.tiny else LENGTHS
    for place, shape in enumerate(shapes):
        clock.share(len(shapes) - place + len(lengths) // 2)
        found = {"name": shape.name, "not_run": "out of time"} if clock.over else attention(shape, clock, dtype)
        content["attention"].append(found)
        write(path, content)
        print(line(found), flush=True)
    for length in lengths:
        for part, run in (("taylor", taylor), ("decoding", decoding)):
            if words and part not in words:
                continue
            found = {"length": length, "not_run": "out of time"}
            if not clock.over:
                found = attempt(lambda run=run, length=length: run(length, clock, dtype, tiny=arguments.tiny))
            content[part].append({"length": length} | found)
            write(path, content)
            print(f"{part} {length}: {found.get('not_run', 'done')}", flush=True)
    content["figures"] = figures(content)
    content["seconds"] = time.monotonic() - began
    write(path, content)
    print(f"wrote {path} after {content['seconds']:.0f} seconds")


def line(found: dict[str, Any]) -> str:
    """A line of a shape's results, forward and backward, in milliseconds."""
    told = []
    for name, result in found.get("contestants", {}).items():
        kernel = result.get("kernel", {})
        times = "/".join(f"{1e3 * kernel[d]:.3g}" for d in ("forward", "backward") if d in kernel)
        told.append(f"{name} {times or '-'}")
    return f"{found['name']}: {found.get('not_run', ', '.join(told))}"


if __name__ == "__main__":
    main()

"""The call of a kernel, for which Triton has no types: values stand for ``constexpr``, and options are added."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Launch:
    """A call of a kernel: what ``triton.jit`` made, programs along each axis, arguments and options."""

    kernel: Any
    programs: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]

    def start(self) -> None:
        self.kernel[self.programs](*self.arguments, **self.options)

    def compile(self) -> Any:
        """Compile the kernel as this call needs it, without starting it; returns what was compiled."""
        return self.kernel.warmup(*self.arguments, grid=self.programs, **self.options)


_kept: ContextVar[list[Launch] | None] = ContextVar("kept", default=None)


@contextmanager
def kept() -> Iterator[list[Launch]]:
    """Calls inside are kept in the list and not started: results stay what memory held."""
    launches: list[Launch] = []
    token = _kept.set(launches)
    try:
        yield launches
    finally:
        _kept.reset(token)


def call(kernel: Any, programs: tuple[int, ...], first: Tensor, *arguments: Any, **options: Any) -> None:
    """Start a kernel on the device of its first argument.

    Args:
        kernel: what ``triton.jit`` made.
        programs: how many programs along each of up to three axes.
        first, arguments: its arguments; those that are compiled in, and how it is compiled, may be named.
    """
    # Products are added without rounding in between; Triton's own default differs between versions.
    launch = Launch(kernel, programs, (first, *arguments), {"enable_fp_fusion": True} | options)
    launches = _kept.get()
    if launches is not None:
        launches.append(launch)
    elif first.device.type == "cuda":
        with torch.cuda.device(first.device):
            launch.start()
    else:
        launch.start()

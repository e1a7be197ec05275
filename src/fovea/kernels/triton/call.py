"""The call of a kernel, for which Triton has no types: values stand for ``constexpr``, and options are added."""

from __future__ import annotations

from typing import Any


def call(kernel: Any, programs: tuple[int, ...], *arguments: Any, **options: Any) -> None:
    """Start a kernel.

    Args:
        kernel: what ``triton.jit`` made.
        programs: how many programs along each of up to three axes.
        arguments: its arguments; those that are compiled in, and how it is compiled, may be named.
    """
    kernel[programs](*arguments, **options)

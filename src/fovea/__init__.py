"""Attention that looks only where it must."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovea.kernels.attention import attention as attention
    from fovea.kernels.merge import merge as merge
    from fovea.kernels.planner import plan as plan
    from fovea.patterns import BlockPattern as BlockPattern
    from fovea.patterns import Blocks as Blocks
    from fovea.patterns import BlockTable as BlockTable
    from fovea.patterns import Causal as Causal
    from fovea.patterns import Chosen as Chosen
    from fovea.patterns import Every as Every
    from fovea.patterns import Full as Full
    from fovea.patterns import GridPattern as GridPattern
    from fovea.patterns import Halo as Halo
    from fovea.patterns import Local as Local
    from fovea.patterns import Neighborhood as Neighborhood
    from fovea.patterns import Offsets as Offsets
    from fovea.patterns import Pattern as Pattern
    from fovea.patterns import PerHead as PerHead
    from fovea.patterns import Powers as Powers
    from fovea.patterns import Product as Product
    from fovea.patterns import Segment as Segment
    from fovea.patterns import Sink as Sink
    from fovea.patterns import SlidingWindow as SlidingWindow
    from fovea.patterns import Spans as Spans
    from fovea.patterns import Union as Union
    from fovea.patterns import Window as Window
    from fovea.patterns import parse as parse

__version__ = "0.1.0"

_PATTERNS = (
    "BlockPattern Blocks BlockTable Causal Chosen Every Full GridPattern Halo Local Neighborhood Offsets Pattern "
    "PerHead Powers Product Segment Sink SlidingWindow Spans Union Window parse"
)
_HOMES = {
    "attention": "fovea.kernels.attention",
    "merge": "fovea.kernels.merge",
    "plan": "fovea.kernels.planner",
    **dict.fromkeys(_PATTERNS.split(), "fovea.patterns"),
}

__all__ = ["__version__", *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fovea' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

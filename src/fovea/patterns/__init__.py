"""Geometry of attention: which keys a query may see, and all that follows from it.

Nothing here touches tensors: patterns are values, and their tables are NumPy arrays of integers.
"""

from fovea.patterns.blocks import BlockPattern, Blocks, BlockTable, Every, Local, Offsets, Powers, Segment, Sink
from fovea.patterns.chosen import Chosen
from fovea.patterns.compose import PerHead, Union
from fovea.patterns.grid import Causal, Full, Halo, Neighborhood, Product, SlidingWindow, Window
from fovea.patterns.pattern import GridPattern, Pattern
from fovea.patterns.spans import Spans
from fovea.patterns.text import parse

__all__ = [
    "BlockPattern",
    "BlockTable",
    "Blocks",
    "Causal",
    "Chosen",
    "Every",
    "Full",
    "GridPattern",
    "Halo",
    "Local",
    "Neighborhood",
    "Offsets",
    "Pattern",
    "PerHead",
    "Powers",
    "Product",
    "Segment",
    "Sink",
    "SlidingWindow",
    "Spans",
    "Union",
    "Window",
    "parse",
]

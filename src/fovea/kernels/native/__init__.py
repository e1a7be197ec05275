"""Attention on the CPU by our own kernels: one shared library, loaded when somebody asks, that links no PyTorch."""

from fovea.kernels.native.backend import Native

__all__ = ["Native"]

"""Attention that looks only where it must."""

__version__ = "0.1.0"

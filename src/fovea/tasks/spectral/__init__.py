"""Hyperspectral classification: what grows or lies at each pixel, from its spectrum and its neighbours'."""

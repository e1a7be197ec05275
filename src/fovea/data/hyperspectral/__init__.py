"""Hyperspectral scenes: the files that people have them in, components of spectra, patches, splits."""

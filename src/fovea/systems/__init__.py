"""The thirty-one systems: one file each, read through :mod:`fovea.systems.catalogue`. Importing one imports no torch."""

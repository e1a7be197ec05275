"""The thirty-one systems: one file each, read through ``systems.catalogue``. Importing one imports no torch."""

"""Generators of the data that demonstrations run on, each a pure function of its seed."""

"""The operator and the ways to compute it."""

"""The operator and the backends that compute it."""

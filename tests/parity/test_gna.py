"""Generalized neighborhood attention over the continuum of strides, against its vectors."""

from __future__ import annotations

import pytest

from parity.test_fna import BACKENDS, compare

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("backend", BACKENDS)
def test_operator(golden, subtests, backend: str) -> None:
    description, tensors = golden("gna")
    for name, case in description["op"].items():
        with subtests.test(name):
            compare(case, f"op.{name}", tensors, backend)

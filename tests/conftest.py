"""What every test stands on: golden vectors, shared data, poisoned memory and checked shapes.

Environment, read once:

    FOVEA_GOLDEN       folder of golden vectors; ``tests/golden`` unless set
    FOVEA_TYPECHECK=0  leaves out the run-time check of annotations (faster when debugging)
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import shape_checks

if TYPE_CHECKING:
    from torch import Tensor

# Read by OpenMP, BLAS, fovea and matplotlib when they load, so set before any of them does.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
CACHE = tempfile.mkdtemp(prefix="fovea-tests-")
os.environ["FOVEA_CACHE"] = CACHE

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(os.environ.get("FOVEA_GOLDEN", ROOT / "tests" / "golden"))
SHARED = ROOT.parent / "shared"

if os.environ.get("FOVEA_TYPECHECK", "1") != "0":
    shape_checks.install("fovea")


def pytest_configure(config: pytest.Config) -> None:
    import hypothesis

    hypothesis.settings.register_profile("here", deadline=None)
    hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
    hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "here")


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(CACHE, ignore_errors=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test marked ``gpu`` is skipped where there is none."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked:
        import torch

        if not torch.cuda.is_available():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(scope="session", autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fresh allocations hold NaN (integers: the largest), so that reading what nobody wrote fails a test."""
    import torch

    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state, alone or in a crowd."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  what scikit-image and SciPy draw from
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], tuple[dict[str, Any], dict[str, Tensor]]]:
    """``golden("fna") -> (description, tensors)`` of one golden vector; skips where the folder does not have it."""

    def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
        description = GOLDEN / f"{name}.json"
        if not description.is_file():
            pytest.skip(f"no golden vector {name!r} in {GOLDEN}")
        from safetensors.torch import load_file

        tensors = description.with_suffix(".safetensors")
        return json.loads(description.read_text()), load_file(tensors) if tensors.is_file() else {}

    return read


@pytest.fixture(scope="session")
def compiler() -> str:
    """The C++ compiler that ``torch.compile`` would call; skips where there is none."""
    names = (os.environ.get("CXX", "g++"), "clang++")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.skip("no C++ compiler")
    return found


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of small real data sets beside the repository; skips where there is none."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("no ../shared/data beside the repository")
    return folder

"""The GPU benchmark: it runs from end to end at a few tokens in the interpreter; figures follow from its times."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="this process interprets")
BENCHMARK = Path(__file__).resolve().parents[2] / "benchmarks/gpu_attention.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = spec_from_file_location("gpu_attention", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_runs_from_end_to_end(tmp_path: Path) -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--tiny", "--out", tmp_path],
        env=environment, capture_output=True, text=True, timeout=540, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    result = json.loads((tmp_path / "gpu_attention.json").read_text())
    assert "mean nothing" in result["machine"]["device"]
    assert result["floors"].keys() >= {"matrix_tflops", "copy_gbytes_per_second"}
    for found in result["attention"]:
        ours = found["contestants"]["ours"]
        assert set(ours["kernel"]) >= {"forward", "backward", "forward_tflops"}
        assert max(ours["error"].values()) < 2e-2
        assert max(found["contestants"]["flex"].get("error", {"out": 0}).values()) < 2e-2
    strided = next(found for found in result["attention"] if found["name"] == "3d strided")
    assert strided["contestants"]["ordered"]["error"]["out"] < 2e-2
    assert result["taylor"][0]["error"] < 2e-2
    assert result["decoding"][0]["power"] > 0
    assert {figure["met"] for figure in result["figures"]} == {None}


def test_shapes_fall_on_the_tiles_that_they_name(benchmark: ModuleType) -> None:
    for shape in (*benchmark.SHAPES, *benchmark.TINY):
        if shape.tile is not None:
            benchmark.TileOrder.of(shape.pattern, shape.grid, shape.tile)


def test_useful_work_is_that_of_the_paper(benchmark: ModuleType) -> None:
    """An H100 takes 23.36 ms for it at 628 useful TFLOP/s (GNA, the authors' profiler)."""
    video = next(shape for shape in benchmark.SHAPES if shape.name == "3d strided")
    assert video.flops / 23.36e-3 / 1e12 == pytest.approx(628, rel=1e-3)


def test_figures_follow_from_the_times(benchmark: ModuleType) -> None:
    contestants: dict[str, Any] = {
        "ours": {"kernel": {"forward": 0.02, "forward_tflops": 500.0}, "padding": {"forward": 1.0}},
        "ordered": {"kernel": {"forward": 0.018}, "permute": 0.005},
        "flex": {"kernel": {"forward": 0.03}},
        "cudnn": {"kernel": {"forward": 0.2}},
        "flash": {"not_run": "out of time"},
    }
    shape = {"name": "3d strided", "bound": 12.5, "contestants": contestants}
    content = {"tiny": False, "floors": {"matrix_tflops": 700.0}, "attention": [shape]}
    found = {(figure["what"], figure["unit"]): figure for figure in benchmark.figures(content)}
    assert found["3d strided forward", "useful TFLOP/s"]["met"]
    assert found["3d strided forward", "times faster than compiled FlexAttention"]["measured"] == pytest.approx(1.5)
    assert found["3d strided", "speed-up over dense attention / bound of the skipped work"][
        "measured"
    ] == pytest.approx(0.8)
    assert found["2d sliding forward", "useful TFLOP/s"]["met"] is None
    assert benchmark.layers_that_pay(contestants) == pytest.approx(2.5)


def test_every_part_gets_its_share_of_the_time(benchmark: ModuleType) -> None:
    clock = benchmark.Clock(torch.device("cpu"), 1.0, 0.0)
    clock.share(4)
    assert clock.end - clock.pause == pytest.approx(45, abs=0.1)
    assert not clock.late

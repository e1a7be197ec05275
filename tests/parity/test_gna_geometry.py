"""The geometry of generalized neighborhood attention: token permutation, tile maps, the tile simulator's numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fovea.patterns import Neighborhood
from fovea.patterns.order import Permutation
from fovea.patterns.simulator import simulate

pytestmark = pytest.mark.parity

Golden = tuple[dict[str, Any], dict[str, Tensor]]

BOUNDS = {
    "flop_speedup": "flop_bound",
    "tile_speedup_sum": "tile_bound",
    "tile_speedup_worst": "worst_tile_bound",
    "token_speedup_worst": "worst_token_bound",
    "fully_block_sparse": "block_sparse",
}


@pytest.fixture(scope="module")
def vector(golden) -> Golden:
    return golden("gna")


def neighborhood(case: dict[str, Any]) -> Neighborhood:
    axes = len(case["layout"])
    return Neighborhood(
        tuple(case["kernel"]),
        tuple(case.get("stride", [1] * axes)),
        tuple(case.get("dilation", [1] * axes)),
        tuple(map(bool, case.get("causal", [False] * axes))),
    )


def test_permutations(vector: Golden):
    description, tensors = vector
    for name, case in description["perm"].items():
        order = Permutation(tuple(case["layout"]), tuple(case["tile"]), tuple(case["dilation"]))
        assert torch.equal(torch.tensor(order.index), tensors[f"output.perm.{name}"].long()), name


def test_tile_maps(vector: Golden):
    description, tensors = vector
    for name, case in description["map"].items():
        tiling = neighborhood(case).tiles(
            tuple(case["layout"]), query_tile=tuple(case["q_tile"]), key_tile=tuple(case["kv_tile"])
        )
        (group,) = tiling.groups
        first, last = group.visits
        assert list(group.query_tiles) == case["q_tiles"], name
        assert list(group.key_tiles) == case["kv_tiles"], name
        assert torch.equal(torch.tensor(group.states()), tensors[f"output.map.{name}.state"]), name
        assert torch.equal(torch.tensor(first), tensors[f"output.map.{name}.kv_first"].long()), name
        assert torch.equal(torch.tensor(last - first), tensors[f"output.map.{name}.kv_count"].long()), name


@pytest.mark.parametrize("kind", ["map", "workload_numbers"])
def test_simulated_numbers(vector: Golden, kind: str):
    compared = 0
    for name, case in vector[0][kind].items():
        pattern, layout = neighborhood(case), tuple(case["layout"])
        tiles = {"query_tile": tuple(case["q_tile"]), "key_tile": tuple(case["kv_tile"])}
        simulation = simulate(pattern, layout, **tiles)
        for theirs, ours in BOUNDS.items():
            if theirs in case:
                compared += 1
                assert getattr(simulation, ours) == pytest.approx(case[theirs], rel=1e-9), (name, theirs)
        (group,) = pattern.tiles(layout, **tiles).groups
        if "kv_tiles_worst" in case:
            assert list(group.most_visited) == case["kv_tiles_worst"], name
            assert list(group.key_tiles) == case["kv_tiles_dense"], name
    assert compared

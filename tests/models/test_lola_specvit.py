"""LoLA-SpecViT's own mechanism: counts, both variants, windows that end with the grid, what learns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fovea.checkpoints import load, save
from fovea.models.lola_specvit import LocalAttention, LoLASpecViT, SpectralCNN, freeze_all_but_adapters
from fovea.models.lola_specvit_config import VARIANTS, LoLASpecViTConfig
from fovea.nn import GridAttention
from fovea.nn.lora import adapters, merge
from fovea.patterns import Window

SMALL = LoLASpecViTConfig(
    in_channels=6,
    num_classes=5,
    dim=16,
    depths=(1, 1, 1),
    num_heads=(2, 2, 4),
    window_size=(3, 3, 3),
    mlp_ratio=2.0,
    spatial_size=9,
    r=2,
    lora_alpha=4.0,
    front=(4, 6),
    squeeze=4,
    drop_path_rate=0.0,
    drop_rate=0.0,
    band_dropout=0.0,
)
OFFICIAL = replace(SMALL, variant="official")


def test_parameters_of_the_published_code() -> None:
    with torch.device("meta"):
        network = LoLASpecViT(VARIANTS["official"])
    assert sum(p.numel() for p in network.parameters()) == 254_642_348
    freeze_all_but_adapters(network)
    assert sum(p.numel() for p in network.parameters() if p.requires_grad) == 73_586_944


def test_the_papers_adapters_are_few() -> None:
    with torch.device("meta"):
        network = LoLASpecViT(VARIANTS["paper"])
    trained = sum(p.numel() for p in adapters(network).values())
    assert trained < 0.02 * sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("config", [OFFICIAL, replace(OFFICIAL, lora="standard"), replace(SMALL, lora="none")])
@pytest.mark.parametrize("side", [4, 9, 15])
def test_every_parameter_gets_a_gradient(config: LoLASpecViTConfig, side: int) -> None:
    config = replace(config, spatial_size=side, squeeze=1)  # with few units, all may be silent
    network = LoLASpecViT(config)
    out = network(torch.randn(3, 6, side, side))
    assert out.shape == (3, 5)
    out.square().sum().backward()
    alone = side < 5  # the last levels have one token: attention to itself, whatever query, key and bias are
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any() or alone, name


def test_the_papers_adapters_start_as_nothing_and_the_codes_do_not() -> None:
    x = torch.randn(2, 6, 9, 9)
    for config, nothing in ((SMALL, True), (replace(SMALL, lora="gated"), True), (OFFICIAL, False)):
        network = LoLASpecViT(config).eval()
        before = network(x)
        for name, parameter in adapters(network).items():
            if name.endswith((".up", ".residual")):
                parameter.data.zero_()
        assert torch.equal(network(x), before) == nothing


def test_windows_of_the_paper_end_with_the_grid() -> None:
    layer = LocalAttention(replace(SMALL, window_size=(7, 7, 7)), 0).eval()
    tokens = torch.randn(2, 4, 4, 16)
    whole = GridAttention(16, 2, Window(7), bias_grid=(7, 7))
    whole.load_state_dict(
        {
            name: tensor
            for name, tensor in layer.attention.state_dict().items()
            if ".down" not in name and ".up" not in name
        }
    )
    torch.testing.assert_close(layer(tokens), whole(tokens))


def test_windows_of_the_code_are_filled_with_unmasked_zeros() -> None:
    """Each query of a 4 x 4 grid in a window of 7 shares its softmax with 33 keys that are the projection's bias."""
    layer = LocalAttention(replace(OFFICIAL, window_size=(7, 7, 7)), 0).eval()
    nn.init.normal_(layer.attention.qkv.bias)
    tokens = torch.randn(1, 4, 4, 16)
    filled = torch.zeros(1, 7, 7, 16)
    filled[:, :4, :4] = tokens
    query, key, value = layer.attention.qkv(filled).reshape(49, 3, 2, 8).unbind(1)
    place = torch.cartesian_prod(torch.arange(7), torch.arange(7))
    offset = place[None] - place[:, None] + 6  # [query, key]: key minus query
    bias = layer.attention.bias
    assert bias is not None
    logits = torch.einsum("qhd,khd->hqk", query, key) / 8**0.5 + bias[:, offset[..., 0], offset[..., 1]]
    out = torch.einsum("hqk,khd->qhd", logits.softmax(-1), value).reshape(7, 7, 16)[:4, :4]
    torch.testing.assert_close(layer(tokens)[0], layer.attention.project(out))


def test_merging_changes_nothing() -> None:
    x = torch.randn(2, 6, 9, 9)
    for config in (SMALL, OFFICIAL):
        network = LoLASpecViT(config).eval()
        for parameter in adapters(network).values():
            nn.init.normal_(parameter, std=0.1)
        before = network(x)
        merge(network)
        torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)


def test_only_adapters_learn_when_told_so() -> None:
    network = freeze_all_but_adapters(LoLASpecViT(SMALL))
    assert {n for n, p in network.named_parameters() if p.requires_grad} == set(adapters(network))
    network = freeze_all_but_adapters(LoLASpecViT(SMALL), head=True)
    learning = {n for n, p in network.named_parameters() if p.requires_grad}
    assert learning - set(adapters(network)) == {"head.weight", "head.bias"}
    with pytest.raises(ValueError, match="no adapters"):
        freeze_all_but_adapters(LoLASpecViT(replace(SMALL, lora="none")))


def test_ablations() -> None:
    names = {name for name, _ in LoLASpecViT(replace(SMALL, local_attention=False, lora="none")).named_parameters()}
    assert not any("attention.attention" in name or name.endswith((".down", ".up")) for name in names)
    assert SpectralCNN(SMALL)(torch.randn(2, 6, 9, 9)).shape == (2, 5)


def test_band_dropout_leaves_out_whole_positions() -> None:
    network = LoLASpecViT(replace(SMALL, band_dropout=0.5)).train()
    ones = torch.ones(4, 3, 6, 2, 2)
    dropped = network.front.dropout(ones)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(dropped.amax((-1, -2)), dropped.amin((-1, -2)))
    assert torch.equal(network.eval().front.dropout(ones), ones)


@pytest.mark.parametrize("kind", [LoLASpecViT, SpectralCNN])
def test_saves_and_loads(kind: type[nn.Module], tmp_path: Path) -> None:
    network, x = kind(SMALL).eval(), torch.randn(2, 6, 9, 9)
    save(tmp_path, network, SMALL)
    found = load(tmp_path)
    assert found.config == SMALL
    assert torch.equal(found.network(x), network(x))


def test_is_captured_as_one_graph() -> None:
    config = replace(OFFICIAL, depths=(1,), num_heads=(2,), window_size=(3,))
    network, x = LoLASpecViT(config).eval(), torch.randn(2, 6, 9, 9)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), network(x))


def test_another_patch_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 6, 7, 7\); it must be \[batch, 6, 9, 9\]"):
        LoLASpecViT(SMALL)(torch.randn(2, 6, 7, 7))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"num_heads": (3, 2, 4)}, "3 must divide 16 channels"),
        ({"depths": (1, 1)}, "must name the same levels"),
        ({"window_size": (0, 3, 3)}, "at least one token"),
        ({"spatial_size": 1}, "at least 2 pixels"),
        ({"squeeze": 17}, "squeeze=17; it must be at most dim=16"),
        ({"variant": "both"}, "'paper' or 'official'"),
        ({"lora": "big"}, "'standard', 'gated' or 'none'"),
        ({"r": 0}, "r=0; it must be at least 1"),
        ({"drop_rate": 1.0}, "drop_rate=1.0; it must be at least 0 and below 1"),
    ],
)
def test_impossible_configurations(words: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SMALL, **words)  # type: ignore[arg-type]

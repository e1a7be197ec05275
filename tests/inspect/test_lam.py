"""Local attribution maps: the integral they are, the index, and networks whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.inspect import BlurPath, Region, diffusion_index, gini, gradient_magnitude, lam
from fovea.models.hat import HAT
from fovea.models.hat_config import HATConfig


class Enlarge(nn.Module):
    """Nearest neighbours: every output pixel is made from one input pixel."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="nearest")


def test_path_leads_from_blurred_to_the_image_itself() -> None:
    image = torch.rand(3, 7, 11)
    images, derivatives = BlurPath(1.2, 5, 9)(image)
    assert images.shape == derivatives.shape == (5, 3, 7, 11)
    torch.testing.assert_close(images[-1], image)
    torch.testing.assert_close(images[1:] - images[:-1], derivatives[1:] / 5, rtol=1e-4, atol=1e-5)


def test_blur_is_the_mirrored_correlation() -> None:
    image = torch.rand(1, 6, 13)
    path = BlurPath(0.9, 4, 5)
    expected = correlate(image[0].double().numpy(), path.kernel(1).numpy(), mode="mirror")
    np.testing.assert_allclose(path(image)[0][0, 0], expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 3)])
def test_images_smaller_than_the_kernel(size: tuple[int, int]) -> None:
    images, _ = BlurPath(1.2, 3, 9)(torch.rand(3, *size))
    assert images.isfinite().all()


def test_attribution_adds_up_to_what_the_path_gains() -> None:
    """Integrated gradients are complete: they sum to D(sharp) - D(blurred), up to the steps of the path."""
    image = torch.rand(3, 12, 12)
    network, region, path = Enlarge(), Region(6, 6, 8, 8), BlurPath(1.2, 400, 9)
    found = lam(network, image, region, path=path, batch=50)
    blurred = F.conv2d(F.pad(image[:, None], (4, 4, 4, 4), mode="reflect"), path.kernel(0).float()[None, None]).movedim(
        1, 0
    )
    gained = gradient_magnitude(network(image[None]), region) - gradient_magnitude(network(blurred), region)
    assert found.signed.sum().item() == pytest.approx(gained.item(), rel=0.02)


def test_only_pixels_the_region_is_made_from_are_marked() -> None:
    found = lam(Enlarge(), torch.rand(3, 16, 16), Region(8, 12, 4, 2), path=BlurPath(fold=4))
    marked = found.map > 0
    assert marked[4:7, 6:8].any()
    marked[4:7, 6:8] = False
    assert not marked.any()
    assert found.map.max() == 1


def test_flat_areas_give_zeros_and_no_nan() -> None:
    image = torch.full((3, 8, 8), 0.5, requires_grad=True)
    gradient_magnitude(image[None], Region(0, 0, 8, 8)).backward()
    assert image.grad is not None
    assert not image.grad.any()
    found = lam(Enlarge(), torch.full((3, 8, 8), 0.5), Region(4, 4, 4, 4), path=BlurPath(fold=3))
    assert not found.map.any()


def test_gradient_magnitude_is_its_formula() -> None:
    y = torch.rand(2, 3, 9, 10)
    total = 0.0
    for r in range(2, 5):
        for c in range(4, 8):
            below, right = y[..., r, c] - y[..., r + 1, c], y[..., r, c] - y[..., r, c + 1]
            total += (below**2 + right**2).sqrt().sum().item()
    assert gradient_magnitude(y, Region(2, 4, 3, 4)).item() == pytest.approx(total, rel=1e-5)


def test_channel_attention_spreads_a_hybrid_network_over_the_whole_image() -> None:
    config = HATConfig(
        upscale=2, embed_dim=12, depths=(1,), num_heads=(2,), window_size=4, squeeze_factor=3, conv_scale=1.0
    )
    image, region, path = torch.rand(3, 24, 24), Region(20, 20, 8, 8), BlurPath(fold=3)
    torch.manual_seed(0)
    both = lam(HAT(config), image, region, path=path)
    torch.manual_seed(0)
    neither = lam(HAT(replace(config, cab=False, ocab=False)), image, region, path=path)
    assert (both.map > 0).all()
    assert (neither.map == 0).any()
    assert both.diffusion_index > neither.diffusion_index


def test_leaves_the_network_as_it_was_and_tells_progress() -> None:
    network = nn.Sequential(Enlarge(), nn.Conv2d(3, 3, 3, padding=1), nn.Dropout()).train()
    told = []
    lam(
        network,
        torch.rand(3, 8, 8),
        Region(4, 4, 4, 4),
        path=BlurPath(fold=5),
        batch=2,
        progress=lambda *p: told.append(p),
    )
    assert network.training
    assert all(parameter.grad is None for parameter in network.parameters())
    assert told == [(2, 5), (4, 5), (5, 5)]


def test_batches_change_nothing() -> None:
    network, image, region = (
        nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), Enlarge()),
        torch.rand(3, 8, 8),
        Region(4, 4, 4, 4),
    )
    one, many = (lam(network, image, region, path=BlurPath(fold=5), batch=batch) for batch in (1, 3))
    torch.testing.assert_close(one.signed, many.signed)


def test_index_of_known_maps() -> None:
    assert gini(torch.ones(4, 4)) == pytest.approx(0, abs=1e-9)
    assert diffusion_index(torch.ones(4, 4)) == pytest.approx(100)
    single = torch.zeros(100)
    single[7] = 1
    assert gini(single) == pytest.approx(0.99, abs=1e-4)
    assert gini(torch.tensor([1.0, 3.0])) == pytest.approx(0.25)
    assert gini(torch.tensor([-1.0, 1.0])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("image", "region", "message"),
    [
        ((1, 3, 8, 8), Region(0, 0, 4, 4), r"it must be \[C, h, w\]"),
        ((3, 8, 8), Region(14, 0, 4, 4), r"does not lie in the output of 16 x 16 pixels"),
        ((3, 8, 8), Region(0, -1, 4, 4), "does not lie"),
        ((3, 8, 8), Region(0, 0, 4, 0), "does not lie"),
    ],
)
def test_impossible_requests(image: tuple[int, ...], region: Region, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lam(Enlarge(), torch.rand(image), region)


@pytest.mark.parametrize("words", [{"size": 4}, {"size": 0}, {"fold": 0}, {"sigma": 0.0}])
def test_impossible_paths(words: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        BlurPath(**words)  # type: ignore[arg-type]

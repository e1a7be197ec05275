"""The real-world degradation: each part against what it means, and the whole as a function of its seed."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from fovea.data.synthetic.textures import texture
from fovea.tasks.restoration import kernels
from fovea.tasks.restoration.degradations import (
    FIRST,
    SECOND,
    degrade,
    filtered,
    gaussian_noise,
    poisson_noise,
    sharpened,
)
from fovea.tasks.restoration.jpeg import compress, round_softly


def picture(size: int = 64, seed: int = 3) -> torch.Tensor:
    return torch.from_numpy(texture(size, seed)).movedim(-1, 0).float() / 255


@pytest.mark.parametrize("form", ["gaussian", "generalised", "plateau"])
def test_bells(form: kernels.Form) -> None:
    kernel = kernels.bell(13, (1.0, 2.5), 0.4, form=form, beta=0.7)
    assert float(kernel.sum()) == pytest.approx(1)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))
    assert kernel.argmax() == 13 * 13 // 2
    across = kernels.bell(13, (2.5, 1.0), 0.4 - math.pi / 2, form=form, beta=0.7)
    torch.testing.assert_close(kernel, across)
    round_ = kernels.bell(13, (2.0, 2.0), 1.1, form=form, beta=0.7)
    torch.testing.assert_close(round_, round_.T)


def test_gaussian_has_its_deviation() -> None:
    kernel = kernels.bell(41, (3.0, 1.5))
    place = torch.arange(41, dtype=torch.float64) - 20
    assert float((kernel.sum(0) * place**2).sum().sqrt()) == pytest.approx(3.0, rel=1e-3)
    assert float((kernel.sum(1) * place**2).sum().sqrt()) == pytest.approx(1.5, rel=1e-3)


def test_sinc_lets_low_frequencies_pass() -> None:
    kernel = kernels.sinc(21, math.pi / 2, 31)
    assert kernel.shape == (31, 31)
    assert float(kernel.sum()) == pytest.approx(1)
    response = torch.fft.fft2(kernel, s=(64, 64)).abs()[0, :33]
    assert float(response[:10].min()) > 0.85
    assert float(response[24:].max()) < 0.15


def test_filter_is_a_correlation_mirrored_without_the_edge() -> None:
    image, kernel = torch.rand(2, 3, 9, 7), torch.rand(2, 5, 5)
    found = filtered(image, kernel)
    for batch in range(2):
        padded = np.pad(image[batch].numpy(), ((0, 0), (2, 2), (2, 2)), mode="reflect")
        windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 5), (1, 2))
        expected = np.einsum("chwij,ij->chw", windows, kernel[batch].numpy())
        np.testing.assert_allclose(found[batch].numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 40)])
def test_filter_of_images_smaller_than_the_kernel(size: tuple[int, int]) -> None:
    image = torch.full((1, 3, *size), 0.25)
    torch.testing.assert_close(filtered(image, kernels.bell(21, (3.0, 2.0)).float()), image)


@pytest.mark.parametrize("grey", [False, True])
def test_noises(grey: bool) -> None:
    image = torch.linspace(0.4, 0.6, 200).expand(1, 3, 200, 200)
    for noise in (gaussian_noise(image, 12.0, grey=grey), poisson_noise(image, 1.0, grey=grey)):
        added = noise - image
        assert bool((added[:, 0] == added[:, 1]).all()) == grey
        assert float(added.mean()) == pytest.approx(0, abs=0.01)
        assert 0 <= float(noise.min()) <= float(noise.max()) <= 1
    assert float((gaussian_noise(image, 12.0, grey=grey) - image).std() * 255) == pytest.approx(12, rel=0.03)


def test_shot_noise_grows_with_light_and_with_its_scale() -> None:
    ramp = torch.linspace(0.1, 0.6, 256).expand(1, 3, 400, 256)
    narrow, wide = (poisson_noise(ramp, scale, grey=False) - ramp for scale in (0.5, 1.0))
    assert float(wide.std() / narrow.std()) == pytest.approx(2, rel=0.05)
    assert float(wide[..., -20:].var() / wide[..., :20].var()) == pytest.approx(0.58 / 0.12, rel=0.15)


def test_sharpening_raises_edges_and_leaves_flat_places() -> None:
    flat = torch.full((1, 3, 60, 60), 0.3)
    torch.testing.assert_close(sharpened(flat), flat)
    edge = flat.clone()
    edge[..., 30:] = 0.7
    found = sharpened(edge)
    assert float(found[0, 0, 30, 29]) < 0.3
    assert float(found[0, 0, 30, 30]) > 0.7


def test_jpeg_is_that_of_files() -> None:
    """Of grey images at quality 50, where encoders need not round the tables. The official tables are transposed, so
    it is the file of the transposed image."""
    quality = 50
    image = (picture(64).mean(0, keepdim=True) * 255).round()
    file = io.BytesIO()
    Image.fromarray(image[0].T.contiguous().byte().numpy()).save(file, "JPEG", quality=quality)
    expected = torch.from_numpy(np.array(Image.open(file))).float().T
    found = compress(image.expand(1, 3, -1, -1) / 255, torch.tensor([float(quality)]))[0, 1] * 255
    assert float((image[0] - expected).abs().max()) > 2
    # Where arithmetic in integers rounds a coefficient to the other side, a whole block changes.
    assert float(((found - expected).abs() < 1).float().mean()) > 0.85


def test_jpeg_has_a_quality_for_each_image_and_a_gradient_when_asked() -> None:
    images, quality = torch.stack([picture(40)] * 2).requires_grad_(), torch.tensor([10.0, 90.0])
    hard, original = compress(images, quality).detach(), images.detach()
    torch.testing.assert_close(hard[0], compress(original[:1], quality[:1])[0])
    assert float((hard[0] - original[0]).abs().mean()) > 2 * float((hard[1] - original[1]).abs().mean())
    compress(images, quality, round_softly).square().sum().backward()
    assert images.grad is not None
    assert float(images.grad.abs().sum()) > 0
    assert quality.tolist() == [10.0, 90.0]


@pytest.mark.parametrize(("size", "scale"), [((64, 64), 4), ((48, 80), 2), ((8, 4), 4)])
def test_degradation(size: tuple[int, int], scale: int) -> None:
    image = picture(80)[:, : size[0], : size[1]]
    for seed in range(12):
        torch.manual_seed(seed)
        low = degrade(image, scale)
        assert low.shape == (3, size[0] // scale, size[1] // scale)
        levels = low * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        assert 0 <= float(low.min()) <= float(low.max()) <= 1
        torch.manual_seed(seed)
        assert torch.equal(degrade(image, scale), low)


def test_degraded_images_keep_their_mean_and_differ_by_seed() -> None:
    image = picture(128)
    torch.manual_seed(0)
    lows = torch.stack([degrade(image, 4) for _ in range(24)])
    assert float(lows.mean()) == pytest.approx(float(image.mean()), abs=0.03)
    assert float(lows.std(0).mean()) > 0.02


def test_ranges_are_those_of_the_paper() -> None:
    assert (FIRST.sigma, SECOND.sigma) == ((0.2, 3.0), (0.2, 1.5))
    assert (FIRST.blurred, SECOND.blurred) == (1.0, 0.8)
    assert (FIRST.gaussian, SECOND.gaussian) == ((1.0, 30.0), (1.0, 25.0))
    assert (FIRST.poisson, SECOND.poisson) == ((0.05, 3.0), (0.05, 2.5))
    assert FIRST.quality == SECOND.quality == (30.0, 95.0)

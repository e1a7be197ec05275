from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fovea.errors import UsageError
from fovea.tasks.restoration.inference import Tiles, automatic, reflect, restore


class Enlarger(nn.Module):
    """Blurs with a 5x5 box and repeats every pixel; like HAT it insists on multiples of its window."""

    def __init__(self, scale: int, multiple: int) -> None:
        super().__init__()
        self.scale, self.multiple = scale, multiple
        self.seen: list[tuple[int, int]] = []

    def forward(self, image: Tensor) -> Tensor:
        assert image.shape[-2] % self.multiple == 0
        assert image.shape[-1] % self.multiple == 0
        self.seen.append(tuple(image.shape[-2:]))
        blurred = nn.functional.avg_pool2d(image, 5, 1, 2)
        return blurred.repeat_interleave(self.scale, -1).repeat_interleave(self.scale, -2)


@given(st.integers(1, 20), st.integers(1, 20), st.sampled_from([1, 4, 8, 16]))
def test_reflection_agrees_with_torch_where_torch_can(height: int, width: int, multiple: int) -> None:
    image = torch.arange(3 * height * width, dtype=torch.float32).view(3, height, width)
    padded = reflect(image, multiple)
    down, right = -height % multiple, -width % multiple
    assert padded.shape == (3, height + down, width + right)
    assert torch.equal(padded[:, :height, :width], image)
    if down < height and right < width:
        assert torch.equal(padded, nn.functional.pad(image[None], (0, right, 0, down), mode="reflect")[0])


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.integers(1, 4),
    st.sampled_from(["blend", "official"]),
    st.sampled_from([8, 16, 24]),
    st.sampled_from([0, 8, 16]),
)
def test_any_size_comes_back_enlarged_and_constant_images_stay_constant(
    height: int, width: int, scale: int, mode: str, size: int, overlap: int
) -> None:
    network = Enlarger(scale, 8)
    network.forward = lambda x: x.repeat_interleave(scale, -1).repeat_interleave(scale, -2)  # type: ignore[method-assign]
    image = torch.rand(3, height, width)
    result = restore(network, image, scale=scale, multiple=8, tiles=Tiles(size, overlap, mode))  # type: ignore[arg-type]
    torch.testing.assert_close(result.image, network(image[None])[0])
    assert result.disagreement < 0.05


def test_official_tiles_equal_the_whole_image_when_the_overlap_covers_what_is_seen() -> None:
    image = torch.rand(3, 37, 50)
    whole = restore(Enlarger(2, 8), image, scale=2, multiple=8)
    tiled = restore(Enlarger(2, 8), image, scale=2, multiple=8, tiles=Tiles(16, 8, "official"))
    torch.testing.assert_close(tiled.image, whole.image)
    seams = restore(Enlarger(2, 8), image, scale=2, multiple=8, tiles=Tiles(16, 0, "official"))
    assert (seams.image - whole.image).abs().max() > 1e-3


def test_one_tile_is_the_whole_image_and_blending_lowers_the_error_as_the_overlap_grows() -> None:
    image = torch.rand(3, 61, 64)
    whole = restore(Enlarger(1, 4), image, scale=1, multiple=4).image
    assert torch.equal(restore(Enlarger(1, 4), image, scale=1, multiple=4, tiles=Tiles(64, 16)).image, whole)
    errors, disagreements = [], []
    for overlap in (0, 4, 8):
        tiled = restore(Enlarger(1, 4), image, scale=1, multiple=4, tiles=Tiles(16, overlap))
        errors.append(float((tiled.image - whole).square().mean()))
        disagreements.append(tiled.disagreement)
    assert errors[0] > errors[1] > errors[2] > 0
    assert disagreements[0] == 0
    assert disagreements[1] > disagreements[2] > 0


def test_tiles_are_multiples_of_the_window_and_progress_counts_them() -> None:
    with pytest.raises(UsageError, match="multiples of 8"):
        restore(Enlarger(1, 8), torch.rand(3, 20, 20), scale=1, multiple=8, tiles=Tiles(12, 8))
    with pytest.raises(UsageError, match="mode=soft"):
        Tiles(16, 8, "soft")  # type: ignore[arg-type]
    calls: list[int] = []
    tiles = Tiles(16, 8)
    restore(Enlarger(1, 8), torch.rand(3, 50, 30), scale=1, multiple=8, tiles=tiles, progress=lambda: calls.append(1))
    assert len(calls) == tiles.count(50, 30) == 8


def test_tiles_are_chosen_by_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr("fovea.tasks.restoration.inference.free_memory", lambda device: 1 << 30)
    assert automatic(64, 64, channels=180, scale=4, multiple=16, device=cpu) is None
    tiles = automatic(4096, 4096, channels=180, scale=4, multiple=16, device=cpu)
    assert tiles is not None
    assert tiles.size % 16 == tiles.overlap % 16 == 0
    smaller = automatic(4096, 4096, channels=720, scale=4, multiple=16, device=cpu)
    assert smaller is not None
    assert smaller.size < tiles.size

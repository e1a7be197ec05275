"""The distance of images in the features of a classifier (the perceptual loss of the real-world networks)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.checkpoints import reading
from fovea.errors import UserError

LAYERS = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1.0, "conv4_4": 1.0, "conv5_4": 1.0}
"""The layers of VGG19 that are compared, and what each counts (Real-HAT's settings)."""
DEPTHS = (2, 2, 4, 4, 4)
WIDTHS = (64, 128, 256, 512, 512)
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's colours, by which the classifier's input is normalised."""


class VGG19(nn.Module):
    """The convolutions of VGG19 (arXiv 1409.1556, table 1, column E); returns features before their ReLU.

    Parameters bear torchvision's names, ``features.0.weight`` to ``features.34.bias``, so that its state dict fits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[int, str] = {}
        layers: list[nn.Module] = []
        channels = 3
        for block, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), start=1):
            for number in range(1, depth + 1):
                self.names[len(layers)] = f"conv{block}_{number}"
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.ModuleList(layers[:-2])

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``[batch, 3, height, width]``, at least 16 x 16, normalised, to the outputs of all convolutions by name."""
        outputs = {}
        for index, layer in enumerate(self.features):
            images = layer(images)
            if index in self.names:
                outputs[self.names[index]] = images
        return outputs


class Perceptual(nn.Module):
    """The weighted sum over layers of the mean absolute difference of their features (arXiv 1603.08155; before ReLU
    as in ESRGAN, arXiv 1809.00219, section 3.2).

    Args:
        state: VGG19's state dict, with torchvision's names; the classifier's own layers are left out if there.
        layers: which layers are compared and what each counts.

    Raises:
        UserError: the state dict is not that of a VGG19.
        ValueError: there is no such layer.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, state: Mapping[str, Tensor], layers: Mapping[str, float] = LAYERS) -> None:
        super().__init__()
        self.network = VGG19()
        if unknown := set(layers) - set(self.network.names.values()):
            raise ValueError(f"layers {sorted(unknown)} are not of VGG19: {', '.join(self.network.names.values())}")
        self.layers = dict(layers)
        wanted = self.network.state_dict()
        wrong = [name for name, value in wanted.items() if name not in state or state[name].shape != value.shape]
        if wrong:
            raise UserError(
                f"the weights are not those of VGG19 in torchvision's layout: {', '.join(wrong[:4])} "
                f"{'is' if len(wrong) == 1 else 'are'} missing or of another shape"
            )
        self.network.load_state_dict({name: state[name] for name in wanted})
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION)[:, None, None], persistent=False)

    def forward(self, restored: Tensor, truth: Tensor) -> Tensor:
        """The distance of two batches ``[batch, 1 or 3, height, width]`` in [0, 1]; no gradient reaches ``truth``."""
        ours = self.network(self._normalised(restored))
        with torch.no_grad():
            theirs = self.network(self._normalised(truth))
        return torch.stack([weight * F.l1_loss(ours[name], theirs[name]) for name, weight in self.layers.items()]).sum()

    def _normalised(self, images: Tensor) -> Tensor:
        return (images.expand(-1, 3, -1, -1) - self.mean) / self.deviation


def perceptual(weights: Path | Literal["none"] | None) -> Perceptual | None:
    """The perceptual loss with the weights of a file, or none where the word ``none`` asks for none.

    Raises:
        UserError: nothing was chosen (VGG19's weights do not come with fovea), or the file does not hold them.
    """
    if weights is None:
        raise UserError(
            "the perceptual loss needs the weights of VGG19, which do not come with fovea: give a file with "
            "torchvision's state dict as adversary.perceptual=vgg19.pth, or train without this loss by "
            "adversary.perceptual=none"
        )
    if str(weights) == "none":
        return None
    if not Path(weights).is_file():
        raise UserError(f"adversary.perceptual={weights}: there is no such file")
    return Perceptual(reading.weights(reading.read(weights)))

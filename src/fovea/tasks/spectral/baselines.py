"""What LoLA-SpecViT is compared with: a support vector machine on single pixels, and itself without its parts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch  # noqa: F401 - before scikit-learn: each brings an OpenMP of its own, and the other order has crashed
from numpy.typing import NDArray

from fovea.data.hyperspectral.scene import Scene
from fovea.errors import MissingExtra
from fovea.tasks.spectral.config import SpectralConfig


def _network(**words: Any) -> Callable[[SpectralConfig], SpectralConfig]:
    return lambda config: replace(config, network=replace(config.network, **words))


def _official(config: SpectralConfig) -> SpectralConfig:
    """The published code's network, standardisation, components and recipe: random weights, only adapters learn."""
    return replace(
        config,
        network=replace(config.network, variant="official", lora=None),
        features=replace(config.features, fit="all", scaled=False, patches="patch", focus=None),
        trained="adapters",
        turns=False,
        average_turns=False,
    )


def _convolutions(config: SpectralConfig) -> SpectralConfig:
    """The front end with a linear head, at three times our rate: it has no adapters, whose rate is higher, and learned
    better so than at ours in the cross-validation that chose how the claims train."""
    optimisation = replace(config.optimisation, lr=3 * config.optimisation.lr)
    return replace(config, model="cnn", trained="all", optimisation=optimisation)


CHANGES: dict[str, Callable[[SpectralConfig], SpectralConfig]] = {
    "cnn": _convolutions,
    "no-attention": _network(local_attention=False),
    "no-lora": lambda config: _network(lora="none")(replace(config, trained="all")),
    "gated": _network(lora="gated"),
    "steady": lambda config: replace(config, cycle=None, modulate="rate"),
    "modulated": lambda config: replace(config, modulate="scale"),
    "unfocused": lambda config: replace(config, features=replace(config.features, focus=None)),
    "standardised": lambda config: replace(config, features=replace(config.features, patches="patch")),
    "adapters": lambda config: replace(config, trained="adapters"),
    "official": _official,
    "pretrained": lambda config: replace(config, trained="adapters+head"),
}
"""Methods that are networks, as changes of the configuration. ``pretrained`` begins with weights of another scene."""


def changed(config: SpectralConfig, method: str) -> SpectralConfig:
    """The configuration of a method: changed for what is compared, as it is for ours (and for what is no network)."""
    return CHANGES[method](config) if method in CHANGES else config


WORDS = {
    "ours": "LoLA-SpecViT",
    "svm": "SVM on single pixels",
    "cnn": "3-D convolutions, linear head",
    "no-attention": "without local attention",
    "no-lora": "without adapters",
    "gated": "gated adapters",
    "steady": "one rate instead of cycles",
    "modulated": "cycles of rate and adapters' scale",
    "unfocused": "the whole patch alike",
    "standardised": "each patch standardised",
    "adapters": "adapters alone learn, rest random",
    "official": "the published code's recipe",
    "pretrained": "adapters and head learn, rest from another scene",
}
"""How methods are called in reports."""


class SupportVectors:
    """A support vector machine with Gaussian kernel on the standardised spectra of single pixels.

    Args:
        scene, places: the labelled pixels to learn from.
        penalty: C.
    """

    def __init__(self, scene: Scene, places: NDArray[np.int64], penalty: float) -> None:
        try:
            from sklearn.pipeline import make_pipeline
            from sklearn.preprocessing import StandardScaler
            from sklearn.svm import SVC
        except ImportError as error:
            raise MissingExtra("the support vector machine", "scikit-learn", "spectral") from error
        assert scene.labels is not None
        self._scene = scene
        self._machine = make_pipeline(StandardScaler(), SVC(C=penalty))
        self._machine.fit(scene.pixels(places), scene.labels.ravel()[places] - 1)

    def classes(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Classes, from 0, of the pixels at these places."""
        parts = [places[first : first + 8192] for first in range(0, len(places), 8192)]
        return np.concatenate([self._machine.predict(self._scene.pixels(part)) for part in parts])

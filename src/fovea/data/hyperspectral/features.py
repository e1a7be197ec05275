"""Spectra to components: PCA or a choice of bands, fitted once and then applied to any pixel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from fovea.errors import MissingExtra, UserError

Method = Literal["pca", "bands"]
Spectra = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Components:
    """An affine map from spectra to components: ``(spectrum - mean) @ matrix``.

    Attributes:
        mean: ``[bands]``, in the units of the scene.
        matrix: ``[bands, components]``.
        about: how it was made, in a few words.
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    about: str

    @property
    def bands(self) -> int:
        return len(self.matrix)

    @property
    def count(self) -> int:
        return self.matrix.shape[1]

    def __call__(self, spectra: Spectra) -> NDArray[np.float32]:
        """``[..., bands] -> [..., components]``.

        Raises:
            UserError: the spectra have another number of bands.
        """
        if spectra.shape[-1] != self.bands:
            raise UserError(
                f"the scene has {spectra.shape[-1]} bands; the components were fitted to spectra of {self.bands} bands"
            )
        matrix = self.matrix.astype(np.float32)
        offset = (self.mean @ self.matrix).astype(np.float32)
        return spectra.astype(np.float32) @ matrix - offset

    def to_dict(self) -> dict[str, Any]:
        """What JSON can hold."""
        return {"mean": self.mean.tolist(), "matrix": self.matrix.tolist(), "about": self.about}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Components:
        """The inverse of ``to_dict``."""
        return cls(np.asarray(values["mean"]), np.asarray(values["matrix"]), values["about"])


def fit(
    spectra: Spectra, count: int, method: Method = "pca", *, whiten: bool = True, scaled: bool = True
) -> Components:
    """Components fitted to the spectra of some pixels, ``[pixels, bands]``.

    ``pca``: the ``count`` directions of largest variance. Their signs are fixed: the largest loading of each is
    positive. ``bands``: neighbouring bands are grouped by how alike they are, and the band nearest to the mean of each
    of ``count`` groups is kept.

    Args:
        whiten: give every component the variance 1 (over the pixels it is fitted to); otherwise all are divided by the
            same number, so that their mean variance is 1.
        scaled: give every band the variance 1 first, so that bright bands count no more than dark ones.

    Raises:
        UserError: there are too few bands or pixels for so many components.
    """
    pixels, bands = spectra.shape
    if count > bands:
        raise UserError(f"network.in_channels={count}; the scene has {bands} bands, and there are no more components")
    if method == "pca" and pixels <= count:
        raise UserError(
            f"network.in_channels={count}; {pixels} pixels allow at most {max(pixels - 1, 0)} components: "
            "train on more, ask for fewer, or fit to the whole scene with features.fit=all"
        )
    exact = spectra.astype(np.float64)
    mean, deviation = exact.mean(0), exact.std(0)
    scale = np.where(deviation > 0, deviation, 1.0) if scaled else np.ones(bands)
    centred = (exact - mean) / scale
    matrix = _directions(centred, count) if method == "pca" else _choice(centred, count)
    spread = (centred @ matrix).std(0, ddof=1) if pixels > 1 else np.ones(count)
    spread = np.where(spread > 0, spread, 1.0)
    if not whiten:
        spread = np.full(count, np.sqrt(np.mean(spread**2)))
    about = f"{'principal components' if method == 'pca' else 'chosen bands'} of {pixels} pixels"
    return Components(mean, matrix / scale[:, None] / spread, about)


def standardised_patches(
    x: Float[Tensor, "batch channels rows columns"],
) -> Float[Tensor, "batch channels rows columns"]:
    """Each channel of each patch with mean 0 and (unbiased) deviation 1, as the published code feeds its network.

    The level of the spectrum is lost, and the noise of flat patches grows.
    """
    centred = x - x.mean((-2, -1), keepdim=True)
    return centred / (x.std((-2, -1), keepdim=True) + 1e-8)


def _directions(centred: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    try:
        from sklearn.decomposition import PCA
    except ImportError as error:
        raise MissingExtra("hyperspectral scenes", "scikit-learn", "spectral") from error
    found = np.asarray(PCA(count, svd_solver="full").fit(centred).components_)
    largest = np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1)
    return (found * np.where(largest < 0, -1.0, 1.0)).T


def _choice(centred: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError as error:
        raise MissingExtra("hyperspectral scenes", "scikit-learn", "spectral") from error
    bands = centred.shape[1]
    chain = np.eye(bands, k=1) + np.eye(bands, k=-1)
    groups = AgglomerativeClustering(count, connectivity=chain).fit_predict(centred.T) if count < bands else None
    chosen = []
    for group in range(count):
        members = np.flatnonzero(groups == group) if groups is not None else np.array([group])
        distance = np.square(centred[:, members] - centred[:, members].mean(1, keepdims=True)).sum(0)
        chosen.append(int(members[distance.argmin()]))
    return np.eye(bands)[:, sorted(chosen)]

"""The photographs that come with scikit-image, and nothing from the net."""

from __future__ import annotations

import pytest

from fovea.data.photographs import PHOTOGRAPHS, photograph
from fovea.errors import UserError


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_every_photograph_is_at_hand(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*args: object) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr("socket.socket.connect", refused)
    image = photograph(name)
    assert image.dtype.name == "uint8"
    assert image.shape[2] == 3
    assert min(image.shape[:2]) >= 170
    assert image.std() > 10


def test_jpegs_are_halved() -> None:
    assert photograph("rocket").shape == (213, 320, 3)


def test_names() -> None:
    with pytest.raises(UserError, match="coffee"):
        photograph("cofee")

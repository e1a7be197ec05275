"""Our checkpoint folders: whole or not at all."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fovea.checkpoints import folder, load, save
from fovea.errors import UserError
from fovea.models.hat import HAT
from fovea.models.hat_config import HATConfig

CONFIG = HATConfig(upscale=2, embed_dim=6, depths=(1,), num_heads=(2,), window_size=4, squeeze_factor=3)


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def half_then_full(tensors: Any, path: Path, metadata: Any = None) -> None:
    path.write_bytes(b"half of it")
    full_disk()


def half_of_the_text(path: Path, text: str) -> int:
    path.write_bytes(text[: len(text) // 2].encode())
    raise OSError(errno.ENOSPC, "No space left on device")


def same_weights(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_description_is_there_for_people(tmp_path: Path) -> None:
    save(tmp_path / "new" / "folder", HAT(CONFIG), CONFIG, {"psnr": 30.5})
    description = json.loads((tmp_path / "new" / "folder" / "config.json").read_text())
    assert description["network"] == "HAT"
    assert description["config"]["window_size"] == 4
    assert description["extra"] == {"psnr": 30.5}
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("owner", "function", "failure"),
    [
        (folder, "save_file", half_then_full),
        (Path, "write_text", half_of_the_text),
        (folder.os, "fsync", full_disk),
        (folder.os, "replace", full_disk),
    ],
    ids=["weights", "description", "flush", "rename"],
)
def test_the_old_checkpoint_survives_a_full_disk(
    owner: Any, function: str, failure: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = HAT(CONFIG), HAT(replace(CONFIG, upscale=4))
    save(tmp_path, old, CONFIG, {"step": 1})
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, failure)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, new, new.config, {"step": 2})
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    found = load(tmp_path)
    assert found.extra == {"step": 1}
    assert same_weights(found.network, old)
    save(tmp_path, new, new.config, {"step": 2})
    assert same_weights(load(tmp_path).network, new)


def test_weights_and_configuration_are_those_of_one_save(tmp_path: Path) -> None:
    """Killed between the two renames: the description is still that of the older save, the weights tell the truth."""
    save(tmp_path / "a", HAT(CONFIG), CONFIG)
    wider = replace(CONFIG, embed_dim=12)
    save(tmp_path / "b", HAT(wider), wider)
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "a" / "model.safetensors")
    assert load(tmp_path / "a").config == wider


def test_a_file_will_do(tmp_path: Path) -> None:
    save(tmp_path, HAT(CONFIG), CONFIG)
    assert load(tmp_path / "model.safetensors").config == CONFIG


def test_what_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no checkpoint in .*there is no model\.safetensors"):
        load(tmp_path)
    file = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(2)}, file)
    with pytest.raises(UserError, match="not written by fovea"):
        load(tmp_path)
    save(tmp_path, HAT(CONFIG), CONFIG)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match="damaged or cut short"):
        load(tmp_path)
    with pytest.raises(UserError, match="unknown network 'Linear'"):
        save(tmp_path, nn.Linear(1, 1), {})

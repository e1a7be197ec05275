from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fovea import checkpoints
from fovea.data.images import read, write
from fovea.data.synthetic.textures import texture
from fovea.errors import UsageError, UserError
from fovea.models.hat import HAT
from fovea.models.hat_config import HATConfig
from fovea.systems.hat import SYSTEM
from fovea.tasks.fit import Batch, fit
from fovea.tasks.optimisation import Hardware, Optimisation
from fovea.tasks.restoration import TASK, measure, sources, start
from fovea.tasks.restoration.config import Adversary, Data, RestorationConfig
from fovea.tasks.restoration.degradations import real_pairs
from fovea.tasks.restoration.examples import Crops, as_pixels, as_tensor, resized
from fovea.tasks.restoration.learner import AdversarialRestorer
from fovea.tasks.restoration.metrics import psnr, ssim
from fovea.tasks.run import RunDirectory

NETWORK = HATConfig(
    upscale=2,
    embed_dim=8,
    depths=(1,),
    num_heads=(2,),
    window_size=4,
    compress_ratio=2,
    squeeze_factor=2,
    drop_path_rate=0.0,
)
TINY = RestorationConfig(
    network=NETWORK,
    data=Data(source="textures", patch=8),
    optimisation=Optimisation(steps=4, batch=2, lr=1e-3, validate_every=2, checkpoint_every=2, report_every=1),
    hardware=Hardware(accelerator="cpu"),
    beginning="interpolation",
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three small clean images."""
    folder = tmp_path_factory.mktemp("images")
    for seed in range(3):
        write(folder / f"{seed}.png", as_tensor(texture(33, seed)))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoint")
    checkpoints.save(folder, HAT(NETWORK), NETWORK)
    return folder


def on(images: Path, **changes: object) -> RestorationConfig:
    config = replace(TINY, **changes)  # type: ignore[arg-type]
    return replace(config, data=replace(config.data, validation=images))


def run_in(folder: Path) -> RunDirectory:
    return RunDirectory(folder, quiet=True)


def test_training_leaves_a_complete_run(tmp_path: Path, images: Path) -> None:
    run = run_in(tmp_path / "run")
    measured = TASK.train(on(images), run, images, quiet=True)
    assert {"psnr", "ssim", "baseline_psnr", "baseline_ssim"} == set(measured)
    assert json.loads((run.path / "metrics.json").read_text()) == measured
    names = {
        "config.yaml",
        "seed",
        "versions.json",
        "metrics.jsonl",
        "log.txt",
        "checkpoint",
        "last.ckpt",
        "report.html",
    }
    assert names <= {path.name for path in run.path.iterdir()}
    assert run.config(RestorationConfig) == on(images)
    loaded = checkpoints.load(run.checkpoint)
    assert loaded.config == NETWORK
    again = measure.means(measure.restored(loaded.network, sources.validation(on(images)), on(images)))
    assert again == pytest.approx(measured)


def test_the_demonstration_ends_with_numbers_and_a_page(tmp_path: Path, images: Path) -> None:
    run = run_in(tmp_path / "run")
    measured = TASK.run(on(images), run, quiet=True)
    assert 0 <= measured["diffusion_index"] <= 100
    page = run.report.read_text()
    assert page.count("data:image/png;base64,") >= 14
    assert "Where the network looked" in page
    assert f"{measured['psnr']:.2f} dB" in page
    assert f"{measured['untrained_psnr']:.2f} dB" in page
    assert "http" not in page.replace("http-equiv", "")


def test_a_run_that_goes_on_ends_as_an_unbroken_one(tmp_path: Path, images: Path) -> None:
    whole, parts = run_in(tmp_path / "whole"), run_in(tmp_path / "parts")
    TASK.train(on(images), whole, None, quiet=True)
    TASK.train(on(images, optimisation=replace(TINY.optimisation, steps=2)), parts, None, quiet=True)
    TASK.train(on(images), parts, None, resume=True, quiet=True)
    first, second = (checkpoints.load(run.checkpoint).network.state_dict() for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("stage", ["denoise", "jpeg"])
@pytest.mark.parametrize("channels", [1, 3])
def test_restoration_without_enlarging(tmp_path: Path, images: Path, stage: str, channels: int) -> None:
    network = replace(NETWORK, upscale=1, in_chans=channels)
    config = on(images, stage=stage, network=network, optimisation=replace(TINY.optimisation, lr=1e-5))
    measured = TASK.train(config, run_in(tmp_path / "run"), images, quiet=True)
    assert measured["baseline_psnr"] < 40
    assert measured["psnr"] > measured["baseline_psnr"] - 1


def test_evaluation_reads_both_layouts_and_measures_alike(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    basic, swin = tmp_path / "basic", tmp_path / "swin"
    for pair in sources.evaluation(TINY, images):
        write(basic / "GTmod2" / f"{pair.name}.png", as_tensor(pair.high))
        write(basic / "LRbicx2" / f"{pair.name}.png", as_tensor(pair.low))
        write(swin / "HR" / f"{pair.name}.png", as_tensor(pair.high))
        write(swin / "LR_bicubic" / "X2" / f"{pair.name}x2.png", as_tensor(pair.low))
    measured = [TASK.evaluate(TINY, checkpoint, folder, quiet=True) for folder in (images, basic, swin)]
    assert measured[0] == measured[1] == measured[2]
    (swin / "LR_bicubic" / "X2" / "1x2.png").unlink()
    with pytest.raises(ValueError, match="1"):
        TASK.evaluate(TINY, checkpoint, swin, quiet=True)


@pytest.mark.parametrize(
    ("scale", "decibels", "similarity"), [(2, 33.678, 0.9304), (3, 30.404, 0.8690), (4, 28.431, 0.8113)]
)
def test_bicubic_on_set5_is_what_the_papers_report(
    shared_data: Path, scale: int, decibels: float, similarity: float
) -> None:
    config = replace(TINY, network=replace(NETWORK, upscale=scale))
    pairs = list(sources.evaluation(config, shared_data / "set5"))
    assert len(pairs) == 5
    for metric, expected in ((psnr, decibels), (ssim, similarity)):
        values = [measure.compare(metric, resized(pair.low, scale), pair.high, config) for pair in pairs]
        assert np.mean(values) == pytest.approx(expected, abs=5e-4 if metric is psnr else 5e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (17, 12)])
def test_any_size_is_restored(tmp_path: Path, checkpoint: Path, size: tuple[int, int]) -> None:
    write(tmp_path / "in.png", torch.rand(3, *size))
    TASK.predict(TINY, checkpoint, [tmp_path / "in.png"], tmp_path / "out.png", quiet=True)
    assert read(tmp_path / "out.png").size == (2 * size[0], 2 * size[1])


def test_grey_deep_and_transparent_photographs_stay_what_they_are(tmp_path: Path, checkpoint: Path) -> None:
    alpha = torch.zeros(1, 6, 8)
    alpha[..., 4:] = 1
    write(tmp_path / "grey.png", torch.rand(1, 6, 8))
    write(tmp_path / "deep.png", torch.rand(3, 6, 8), bits=16)
    write(tmp_path / "clear.png", torch.rand(3, 6, 8), alpha=alpha)
    written = TASK.predict(TINY, checkpoint, [tmp_path], tmp_path / "out", quiet=True)
    assert [path.name for path in written] == ["clear-x2.png", "deep-x2.png", "grey-x2.png"]
    clear, deep, grey = map(read, written)
    assert len(grey.pixels) == 1
    assert deep.bits == 16
    assert clear.alpha is not None
    assert clear.alpha.shape == (1, 12, 16)
    assert float(clear.alpha[..., :6].max()) < 0.1 < 0.9 < float(clear.alpha[..., 10:].min())
    assert float((deep.pixels * 255 - (deep.pixels * 255).round()).abs().max()) > 0.01


def test_tiles_and_the_whole_agree_where_one_tile_suffices(tmp_path: Path, checkpoint: Path) -> None:
    write(tmp_path / "in.png", torch.rand(3, 20, 24))
    outputs = []
    for name, options in {"whole": {"tile": "whole"}, "one": {"tile": 24}, "cut": {"tile": 8, "overlap": 4}}.items():
        TASK.predict(TINY, checkpoint, [tmp_path / "in.png"], tmp_path / f"{name}.png", quiet=True, **options)
        outputs.append(read(tmp_path / f"{name}.png").pixels)
    assert torch.equal(outputs[0], outputs[1])
    assert 0 < float((outputs[0] - outputs[2]).abs().max()) < 0.5


def test_tiles_tell_their_difference_from_the_whole(
    tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "in.png", torch.rand(3, 20, 24))
    TASK.predict(TINY, checkpoint, [tmp_path / "in.png"], tmp_path / "out.png", tile=8, overlap=4, compare=True)
    (told,) = re.findall(r"mean ([\d.]+), most ([\d.]+) of 255, PSNR ([\d.]+) dB", capsys.readouterr().err)
    mean, most, decibels = map(float, told)
    assert 0 < mean < most
    assert mean < 255 / 10 ** (decibels / 20) < most


def test_large_images_are_evaluated_in_tiles(images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = list(sources.evaluation(TINY, images))
    network = start.load(checkpoint, TINY)
    whole = measure.restored(network, pairs, TINY)
    seen: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[2:])))
    monkeypatch.setattr("fovea.tasks.restoration.inference.free_memory", lambda device: 400_000)
    tiled = measure.restored(network, pairs, TINY)
    assert len(seen) > len(pairs)
    assert max(map(max, seen)) < 20
    assert tiled[0].measured["psnr"] == pytest.approx(whole[0].measured["psnr"], abs=1)


def test_mistakes_are_one_line(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    photo, one_pixel = images / "0.png", tmp_path / "one"
    write(one_pixel / "dot.png", torch.rand(3, 1, 1))
    calls = {
        "no weights come with": lambda: TASK.predict(TINY, None, [photo], tmp_path / "o.png", quiet=True),
        "there is no checkpoint": lambda: TASK.predict(
            TINY, tmp_path / "none", [photo], tmp_path / "o.png", quiet=True
        ),
        "is the input itself": lambda: TASK.predict(TINY, checkpoint, [photo], photo, quiet=True),
        "is a file, not a folder": lambda: TASK.predict(
            TINY, checkpoint, [photo], photo / "below" / "o.png", quiet=True
        ),
        "mode=best": lambda: TASK.predict(TINY, checkpoint, [photo], tmp_path / "o.png", quiet=True, mode="best"),
        "overlap=-3": lambda: TASK.predict(TINY, checkpoint, [photo], tmp_path / "o.png", quiet=True, overlap=-3),
        "tile=1.5": lambda: TASK.predict(TINY, checkpoint, [photo], tmp_path / "o.png", quiet=True, tile=1.5),
        "unknown option 'network'; there": lambda: TASK.predict(
            TINY, checkpoint, [photo], tmp_path / "o.png", quiet=True, network=3
        ),
        "too small for x2": lambda: TASK.evaluate(TINY, checkpoint, one_pixel, run=run_in(tmp_path / "e"), quiet=True),
        "is not empty": lambda: TASK.evaluate(TINY, checkpoint, images, run=run_in(images), quiet=True),
        "compare=3": lambda: TASK.predict(TINY, checkpoint, [photo], tmp_path / "o.png", quiet=True, compare=3),
        "a file must end in": lambda: TASK.predict(TINY, checkpoint, [photo], tmp_path / "o.gif", quiet=True),
        "tile=0": lambda: TASK.predict(TINY, checkpoint, [photo], tmp_path / "o.png", quiet=True, tile=0),
        "upscale=2": lambda: TASK.evaluate(
            replace(TINY, network=replace(NETWORK, upscale=4), weights="hat-small-x2"), None, images, quiet=True
        ),
        "smaller than data.patch=32": lambda: TASK.train(
            on(images, data=replace(TINY.data, patch=32)), run_in(tmp_path / "r"), images, quiet=True
        ),
        "must be a folder": lambda: TASK.train(TINY, run_in(tmp_path / "s"), photo, quiet=True),
    }
    for words, call in calls.items():
        with pytest.raises(UserError, match=words) as caught:
            call()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "e").exists()
    with pytest.raises(UsageError, match="multiple of network.window_size=4"):
        replace(TINY, data=replace(TINY.data, patch=10))
    with pytest.raises(UsageError, match=r"network.upscale=1; stage sr needs 2 or 3 or 4"):
        replace(TINY, network=replace(NETWORK, upscale=1))


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_computed(
    tmp_path: Path, images: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    monkeypatch.setattr(HAT, "forward", lambda *_: pytest.fail("computed"))
    with pytest.raises(UserError, match=r"o.png: no permission to write in"):
        TASK.predict(TINY, checkpoint, [images / "0.png"], tmp_path / "new" / "o.png", quiet=True)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = HAT(NETWORK)
    with torch.no_grad():
        next(network.parameters())[0] = float("nan")
    checkpoints.save(tmp_path, network, NETWORK)
    with pytest.raises(UserError, match="not finite"):
        start.load(tmp_path, TINY)
    with pytest.raises(UserError, match="not finite"):
        start.begin(TINY, tmp_path)


def test_a_checkpoint_is_used_at_its_own_scale_and_window(tmp_path: Path, images: Path) -> None:
    other = replace(NETWORK, upscale=4, window_size=8, in_chans=1)
    checkpoints.save(tmp_path / "other", HAT(other), other)
    (written,) = TASK.predict(TINY, tmp_path / "other", [images / "0.png"], tmp_path / "out.png", quiet=True)
    assert read(written).size == (4 * 33, 4 * 33)
    measured = TASK.evaluate(TINY, tmp_path / "other", images, run=run_in(tmp_path / "run"), quiet=True)
    assert (
        measured["baseline_psnr"]
        < TASK.evaluate(replace(TINY, weights="hat-small-x2"), None, images, quiet=True)["baseline_psnr"]
    )


def test_training_does_not_begin_with_a_part_of_a_deeper_network(tmp_path: Path) -> None:
    deeper = replace(NETWORK, depths=(1, 1), num_heads=(2, 2))
    checkpoints.save(tmp_path / "deeper", HAT(deeper), deeper)
    with pytest.raises(checkpoints.CheckpointMismatch, match=r"depths \(1, 1\) -> \(1,\)") as caught:
        start.begin(TINY, tmp_path / "deeper")
    assert "groups.1.blocks" in str(caught.value)


def test_x4_starts_from_x2_and_says_what_is_new(checkpoint: Path) -> None:
    network, told = start.begin(replace(TINY, network=replace(NETWORK, upscale=4)), checkpoint)
    source = checkpoints.load(checkpoint).network.state_dict()
    state = network.state_dict()
    assert all(torch.equal(state[name], source[name]) for name in source)
    new = sorted(set(state) - set(source))
    assert new
    assert all(name.startswith("upsampler.convs.1.") for name in new)
    assert "upscale 2 -> 4" in told[0]
    assert all(name in told[1] for name in new)
    with pytest.raises(checkpoints.CheckpointMismatch, match="embed_dim 8 -> 16"):
        start.begin(replace(TINY, network=replace(NETWORK, embed_dim=16)), checkpoint)


def test_what_is_refused_leaves_no_folder(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    stage_after = on(images, beginning="checkpoint")
    wider = on(images, network=replace(NETWORK, embed_dim=16))
    empty = tmp_path / "empty"
    empty.mkdir()
    for words, config, weights, data in [
        ("--checkpoint", stage_after, None, images),
        ("embed_dim 8 -> 16", wider, checkpoint, images),
        ("there is no checkpoint", TINY, tmp_path / "none", images),
        ("empty", on(images), None, empty),
        ("hardware", on(images, hardware=Hardware(accelerator="abacus")), None, images),
        ("smaller than data.patch=36", on(images, data=replace(TINY.data, patch=36)), None, images),
    ]:
        with pytest.raises((UserError, checkpoints.CheckpointMismatch), match=words):
            TASK.train(config, run_in(tmp_path / "run"), data, checkpoint=weights, quiet=True)
        assert not (tmp_path / "run").exists(), words


def test_a_stage_after_another_goes_on_without_its_checkpoint(tmp_path: Path, images: Path, checkpoint: Path) -> None:
    config = on(images, beginning="checkpoint")
    TASK.train(config, run_in(tmp_path / "run"), images, checkpoint=checkpoint, quiet=True)
    longer = replace(config, optimisation=replace(config.optimisation, steps=6))
    TASK.train(longer, run_in(tmp_path / "run"), images, resume=True, quiet=True)
    assert run_in(tmp_path / "run").measurements()[-1]["step"] == 6


def test_the_trainings_after_another_stage_ask_for_its_weights() -> None:
    presets = SYSTEM.presets
    asking = {name for name, preset in presets.items() if preset.beginning == "checkpoint"}
    fine = {f"paper-{name}-x{scale}-finetune" for name in ("hat", "hat-l") for scale in (2, 3, 4)}
    later = {"paper-hat-s-x4", "paper-hat-x4", "paper-real-gan"}
    assert asking == fine | later | {"paper-denoise-large-patches", "paper-jpeg-large-patches"}


def test_pairs_are_what_the_stage_makes_of_the_clean_image(images: Path) -> None:
    high = as_pixels(read(images / "0.png").pixels)
    noisy = sources.degraded(high, replace(TINY, stage="denoise", network=replace(NETWORK, upscale=1)), 0)
    noise = noisy.astype(float) - high
    assert np.std(noise) == pytest.approx(25, rel=0.05)
    assert np.abs(noise - noise.round()).max() > 0.4
    assert noisy.min() < 0
    assert noisy.max() > 255
    assert np.array_equal(
        noisy, sources.degraded(high, replace(TINY, stage="denoise", network=replace(NETWORK, upscale=1)), 0)
    )
    errors = [float(np.square(sources.compressed(high, quality).astype(float) - high).mean()) for quality in (10, 90)]
    assert errors[0] > 2 * errors[1] > 0


REAL = replace(TINY, network=replace(NETWORK, upscale=4), data=Data(patch=8, crop=32), stage="real")


@pytest.mark.parametrize("stage", ["real", "real-gan"])
def test_real_photographs_in_both_stages(tmp_path: Path, images: Path, stage: str) -> None:
    adversary = Adversary(perceptual="none", num_feat=4)
    config = replace(REAL, stage=stage, adversary=adversary, data=replace(REAL.data, validation=images))
    run = run_in(tmp_path / "run")
    TASK.train(config, run, images, quiet=True)
    lines = [line for line in run.measurements() if "loss" in line]
    assert len(lines) == 4
    assert ("adversarial" in lines[0]) == (stage == "real-gan")
    with pytest.raises(UserError, match="VGG19"):
        TASK.train(replace(config, stage="real-gan", adversary=Adversary()), run_in(tmp_path / "b"), images, quiet=True)
    assert not (tmp_path / "b").exists()


def test_real_pairs_are_patches_of_one_place_and_repeat_with_their_seed() -> None:
    batch = {"high": torch.stack([as_tensor(texture(64, seed)) for seed in range(2)])}
    made = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        made.append(real_pairs(batch, 4, 8))
    assert {name: tuple(value.shape) for name, value in made[0].items()} == {
        "low": (2, 3, 8, 8),
        "high": (2, 3, 32, 32),
        "sharp": (2, 3, 32, 32),
    }
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(made[0]["low"], made[2]["low"])
    smaller = torch.nn.functional.interpolate(made[0]["high"], size=8, mode="area")
    assert float((smaller - made[0]["low"]).abs().mean()) < 0.3


def test_noise_is_new_in_every_example_and_the_same_when_asked_again(images: Path) -> None:
    config = replace(TINY, stage="denoise", network=replace(NETWORK, upscale=1))
    for examples in (sources.training(config, images), sources.training(config, None)):
        noises = [examples(step, 0)["low"] - examples(step, 0)["high"] for step in (1, 2, 1)]
        assert torch.equal(noises[0], noises[2])
        assert not torch.equal(noises[0], noises[1])


def test_crops_of_a_pair_show_the_same_place() -> None:
    high = texture(64, 0)
    crops = Crops([(high[::2, ::2], high)], patch=8, scale=2, seed=0)
    for step in range(20):
        example = crops(step, 0)
        candidates = [example["high"][:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        assert any(torch.equal(example["low"], candidate) for candidate in candidates)


def test_the_adversary_takes_its_turn_after_the_network(tmp_path: Path, images: Path) -> None:
    class Watched(AdversarialRestorer):
        turns: ClassVar[list[str]] = []

        def loss(self, player: str, networks: dict[str, nn.Module], batch: Batch) -> dict[str, Tensor]:
            self.turns.append(player)
            frozen = {name for name, network in networks.items() if not next(network.parameters()).requires_grad}
            assert frozen == {"network", "discriminator"} - {player}
            return super().loss(player, networks, batch)

    torch.manual_seed(0)
    config = on(images)
    learner = Watched(
        HAT(NETWORK), sources.training(config, images), lambda network: {}, None, Adversary(num_feat=4), None
    )
    before = {name: value.clone() for name, value in learner.players["discriminator"].state_dict().items()}
    run = run_in(tmp_path / "run")
    run.start(config, seed=0)
    fit(learner, config.optimisation, run, seed=0, hardware=config.hardware, quiet=True)
    assert Watched.turns == ["network", "discriminator"] * 4
    line = run.measurements()[0]
    assert line["loss"] == pytest.approx(line["pixel"] + line["adversarial"], rel=1e-5)
    assert line["discriminator_loss"] == pytest.approx(2 * np.log(2), abs=0.3)
    after = learner.players["discriminator"].state_dict()
    assert all(not torch.equal(before[name], after[name]) for name in before if name.endswith("weight"))

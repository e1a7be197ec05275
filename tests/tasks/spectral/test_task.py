"""Hyperspectral classification from end to end, at a size of seconds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import tifffile
import torch
from PIL import Image

from fovea import checkpoints
from fovea.checkpoints import to_official
from fovea.data.hyperspectral import tiff
from fovea.data.hyperspectral.georeference import KEYS, PIXEL_SCALE, TIEPOINT, Georeference
from fovea.data.hyperspectral.scene import Scene
from fovea.data.synthetic.spectra import Difficulty, scene
from fovea.errors import UsageError, UserError
from fovea.models.lola_specvit import LoLASpecViT
from fovea.models.lola_specvit_config import LoLASpecViTConfig
from fovea.nn.lora import adapters
from fovea.tasks.fit import Learner
from fovea.tasks.optimisation import Hardware, Optimisation
from fovea.tasks.run import RunDirectory
from fovea.tasks.spectral import TASK, baselines, inference, maps, sources, trials
from fovea.tasks.spectral.config import Data, Features, SpectralConfig, Split
from fovea.tasks.spectral.learner import PixelClassifier
from fovea.tasks.spectral.page import summary
from fovea.tasks.spectral.predict import load

NETWORK = LoLASpecViTConfig(
    in_channels=4,
    dim=8,
    depths=(1, 1),
    num_heads=(2, 2),
    window_size=(3, 3),
    mlp_ratio=1.0,
    spatial_size=5,
    r=2,
    lora_alpha=4.0,
    front=(2, 4),
    squeeze=2,
    drop_path_rate=0.0,
)
TINY = SpectralConfig(
    network=NETWORK,
    data=Data(side=24, fields=10, kinds=3, bands=12),
    features=Features(whiten=False),
    split=Split(train=0.2, block=6, area=0.3),
    optimisation=Optimisation(
        steps=6, batch=8, algorithm="adamw", lr=3e-3, ema=0.5, validate_every=3, checkpoint_every=2, report_every=1
    ),
    hardware=Hardware(accelerator="cpu"),
    compare=("svm",),
    cycle=2,
)
RANDOM = replace(TINY, split=replace(TINY.split, kinds=("random",)), compare=())
EASY = Difficulty(likeness=0.1, mixing=0.3, fields=0.05, rows=0, light=0.02, noise=0.2)


def run_in(folder: Path) -> RunDirectory:
    return RunDirectory(folder, quiet=True)


def fields(seed: int = 0) -> Scene:
    return scene((24, 26), 3, 12, 10, seed=seed, difficulty=EASY)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene and its label map as people have them."""
    folder = tmp_path_factory.mktemp("data")
    made = fields()
    scipy.io.savemat(folder / "Fields.mat", {"fields": made.cube})
    assert made.labels is not None
    scipy.io.savemat(folder / "Fields_gt.mat", {"fields_gt": (made.labels * 2).astype(np.uint8)})
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """Of a network that has learned enough to tell classes apart."""
    folder = tmp_path_factory.mktemp("run") / "run"
    longer = replace(TINY.optimisation, steps=60, batch=16, validate_every=60, checkpoint_every=60)
    TASK.train(replace(RANDOM, cycle=None, optimisation=longer), run_in(folder), data, quiet=True)
    return folder


def test_the_demonstration_leaves_all_that_it_promises(tmp_path: Path) -> None:
    config = replace(TINY, seeds=2, compare=("svm", "cnn"), optimisation=replace(TINY.optimisation, steps=3))
    run = run_in(tmp_path / "run")
    measured = TASK.run(config, run, quiet=True)
    for kind in ("random", "disjoint"):
        for method in ("ours", "svm", "cnn"):
            for name in ("oa", "aa", "kappa", "oa_deviation"):
                assert np.isfinite(measured[f"{kind}_{method}_{name}"])
    assert measured["random_leakage_pixel"] > 0.5
    assert measured["disjoint_leakage_pixel"] == 0
    assert json.loads((run.path / "metrics.json").read_text()) == measured
    text = run.report.read_text()
    for words in (
        "false colours",
        "SVM on single pixels",
        "pixels learned",
        "hold a learned pixel",
        "±",
        "How it learned",
    ):
        assert words in text
    with Image.open(run.path / "map.png") as picture:
        assert picture.size[0] > 24
    assert tifffile.imread(run.path / "map.tif").shape == (24, 24)
    assert isinstance(checkpoints.load(run.checkpoint).network, LoLASpecViT)


def test_every_comparison_runs_and_learns_what_it_says(tmp_path: Path) -> None:
    methods = ("svm", "cnn", "no-attention", "no-lora", "gated", "adapters", "official", "pretrained")
    config = replace(RANDOM, compare=methods, optimisation=replace(TINY.optimisation, steps=2))
    (lesson,) = trials.lessons(config, None)
    found = {}
    for method in methods:
        start = trials.elsewhere(config, 0, tmp_path / "elsewhere", quiet=True) if method == "pretrained" else None
        found[method] = trials.compared(config, lesson, method, tmp_path / method, start=start, quiet=True)
        assert trials.compared(config, lesson, method, tmp_path / method) == found[method]
    network = LoLASpecViT(replace(NETWORK, num_classes=3))
    own = sum(p.numel() for p in adapters(network).values())
    head = sum(p.numel() for name, p in network.named_parameters() if name in ("head.weight", "head.bias"))
    assert found["adapters"].learned == own < found["adapters"].parameters
    assert found["pretrained"].learned == own + head
    assert found["no-lora"].learned == found["no-lora"].parameters == found["adapters"].parameters - own
    assert found["gated"].parameters > found["adapters"].parameters
    assert found["official"].learned < found["official"].parameters == found["gated"].parameters


def test_what_does_not_learn_stays(tmp_path: Path) -> None:
    config = replace(RANDOM, trained="adapters", optimisation=replace(TINY.optimisation, ema=0.0))
    (lesson,) = trials.lessons(config, None)
    before = trials.build(trials.for_scene(config, lesson.scene), lesson.scene, 0).state_dict()
    before = {name: tensor.clone() for name, tensor in before.items()}
    run = run_in(tmp_path / "run")
    run.start(config, seed=0)
    trials.train(config, lesson, run, quiet=True)
    after = checkpoints.load(run.checkpoint).network
    own = set(adapters(after))
    for name, parameter in after.named_parameters():
        assert torch.equal(parameter, before[name]) == (name not in own), name


def test_a_run_that_goes_on_ends_as_an_unbroken_one(tmp_path: Path, data: Path) -> None:
    whole, parts = run_in(tmp_path / "whole"), run_in(tmp_path / "parts")
    TASK.train(RANDOM, whole, data, quiet=True)
    TASK.train(replace(RANDOM, optimisation=replace(TINY.optimisation, steps=2)), parts, data, quiet=True)
    TASK.train(RANDOM, parts, data, resume=True, quiet=True)
    first, second = (checkpoints.load(run.checkpoint).network.state_dict() for run in (whole, parts))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_it_learns(tmp_path: Path, data: Path) -> None:
    config = replace(RANDOM, optimisation=replace(TINY.optimisation, steps=80, batch=16, validate_every=80), cycle=None)
    run = run_in(tmp_path / "run")
    measured = TASK.train(config, run, data, quiet=True)
    assert measured["random_ours_oa"] > 75
    losses = [line["loss"] for line in run.measurements() if "loss" in line]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def learner(config: SpectralConfig) -> PixelClassifier:
    (lesson,) = trials.lessons(config, None)
    assert lesson.scene.labels is not None
    network = trials.build(config, lesson.scene, 0)
    fitted = sources.components(config, lesson.scene, lesson.split)
    patches = inference.Reader(network, fitted, 5, "scene").patches(lesson.scene)
    places = lesson.split.train
    return PixelClassifier(
        network, patches, places, lesson.scene.labels.ravel()[places] - 1, config, 0, lambda network: {}, {}
    )


def test_every_pixel_comes_once_before_any_comes_again() -> None:
    taught = learner(replace(RANDOM, turns=False))
    count, batch = len(taught._places), TINY.optimisation.batch
    seen = [
        taught.example(step, position)["patch"].numpy().tobytes()
        for step in range(1, -(-count // batch) + 1)
        for position in range(batch)
    ][:count]
    assert len(set(seen)) == count
    again = taught.example(2, 1)
    assert torch.equal(again["patch"], taught.example(2, 1)["patch"])


def test_patches_are_turned_about_their_middle() -> None:
    taught = learner(RANDOM)
    plain = learner(replace(RANDOM, turns=False))
    turned = 0
    for position in range(8):
        ours, theirs = taught.example(1, position)["patch"], plain.example(1, position)["patch"]
        assert torch.equal(ours[:, 2, 2], theirs[:, 2, 2])
        torch.testing.assert_close(ours.sum((1, 2)), theirs.sum((1, 2)))
        turned += not torch.equal(ours, theirs)
    assert turned > 3


def test_adapters_have_twice_the_cyclical_rate() -> None:
    taught = learner(replace(RANDOM, cycle=4, optimisation=replace(TINY.optimisation, lr=1e-2)))
    groups = taught.groups("network")
    own = {id(parameter) for parameter in adapters(taught.players["network"]).values()}
    assert {id(parameter) for parameter in groups[0]["params"]} == own
    assert not own & {id(parameter) for parameter in groups[1]["params"]}
    first = taught.rates("network", taught.config.optimisation, 1)
    assert first[0] - 1e-6 == pytest.approx(2 * (first[1] - 1e-6))
    assert first[1] == pytest.approx(1e-2)
    restart = [taught.rates("network", taught.config.optimisation, step)[1] for step in (4, 5, 12, 13)]
    assert restart[1] == restart[3] == first[1]
    assert restart[2] < restart[0] < first[1] / 2
    plain = learner(replace(RANDOM, cycle=None))
    assert plain.rates("network", plain.config.optimisation, 1) == [TINY.optimisation.rate(1)] * 2
    assert isinstance(plain, Learner)


def test_predictions_do_not_depend_on_tiles(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    found = []
    for tile in (500, 7, 1):
        out = tmp_path / f"{tile}.tif"
        assert TASK.predict(RANDOM, checkpoint, [data / "Fields.mat"], out, quiet=True, tile=tile) == [out]
        found.append(tifffile.imread(out))
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
    assert len(np.unique(found[0])) > 1
    assert set(np.unique(found[0])) <= {2, 4, 6}  # the numbers of the label map


def test_averaged_turns_do_not_depend_on_how_the_scene_lies(checkpoint: Path) -> None:
    made = fields()
    turned = replace(made, cube=np.ascontiguousarray(np.rot90(made.cube)))
    plain = load(checkpoint).reader(RANDOM, made)
    averaged = replace(plain, average_turns=True)
    first, second = inference.classify(averaged, made), inference.classify(averaged, turned)
    assert (np.rot90(first) == second).mean() > 0.99
    assert not np.array_equal(first, inference.classify(plain, made))


def test_memory_is_that_of_a_tile(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = load(checkpoint)
    made = fields()
    reader = trained.reader(RANDOM, made)
    sizes = []
    patches = inference.Patches

    def watched(image: np.ndarray, side: int) -> inference.Patches:
        sizes.append(image.shape)
        return patches(image, side)

    monkeypatch.setattr(inference, "Patches", watched)
    counted = []
    inference.classify(reader, made, tile=8, progress=counted.append)
    assert sum(counted) == 24 * 26
    assert len(sizes) == 3 * 4
    assert max(rows for rows, _, _ in sizes) == 8 + 4


def test_maps_lie_where_their_scene_does(checkpoint: Path, tmp_path: Path) -> None:
    made = fields()
    place = Georeference(
        {
            PIXEL_SCALE: (20.0, 20.0, 0.0),
            TIEPOINT: (0.0, 0.0, 0.0, 5e5, 4e6, 0.0),
            KEYS: (1, 1, 0, 1, 3072, 0, 1, 32610),
        }
    )
    tifffile.imwrite(
        tmp_path / "scene.tif", made.cube, photometric="minisblack", planarconfig="contig", extratags=place.extratags()
    )
    TASK.predict(RANDOM, checkpoint, [tmp_path / "scene.tif"], tmp_path / "map.tif", quiet=True)
    found = tiff.read(tmp_path / "map.tif")
    assert found.place is not None
    assert {number: tuple(value) for number, value in found.place.tags.items()} == dict(place.tags)
    with tifffile.TiffFile(tmp_path / "map.tif") as file:
        description = json.loads(file.pages[0].description)
        assert file.pages[0].colormap is not None
    assert description["classes"] == {"2": "class 2", "4": "class 4", "6": "class 6"}


def test_pictures_folders_labels_and_majority(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    scenes = [data / "Fields.mat", tmp_path / "Other.npy"]
    np.save(scenes[1], fields(1).cube)
    written = TASK.predict(RANDOM, checkpoint, scenes, tmp_path / "maps", quiet=True)
    assert [path.name for path in written] == ["Fields-map.png", "Other-map.png"]
    TASK.predict(
        RANDOM,
        checkpoint,
        scenes[:1],
        tmp_path / "some.tif",
        quiet=True,
        labels=str(data / "Fields_gt.mat"),
        majority=3,
    )
    labels = scipy.io.loadmat(data / "Fields_gt.mat")["fields_gt"]
    assert np.array_equal(tifffile.imread(tmp_path / "some.tif") > 0, labels > 0)


def test_evaluation_leaves_out_what_was_learned(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    trial = json.loads((checkpoint / "metrics.json").read_text())
    measured = TASK.evaluate(RANDOM, checkpoint, data, run=run_in(tmp_path / "run"), quiet=True)
    known = checkpoints.load(checkpoint / "checkpoint").extra["known"]["places"]
    labels = scipy.io.loadmat(data / "Fields_gt.mat")["fields_gt"]
    assert measured["pixels"] == (labels > 0).sum() - len(known)
    assert measured["oa"] == pytest.approx(trial["random_ours_oa"])
    assert (tmp_path / "run" / "map.png").is_file()


def test_official_checkpoints_read_a_scene_as_their_code_does(data: Path, tmp_path: Path) -> None:
    config = replace(NETWORK, variant="official", in_channels=10, num_classes=3, squeeze=8, front=(2, 4))
    config = replace(config, dim=16, squeeze=16)
    torch.save({"state_dict": to_official("lola-specvit", LoLASpecViT(config), config)}, tmp_path / "best.pth")
    trained = load(tmp_path / "best.pth")
    assert trained.network.config.dim == 16
    with pytest.raises(UserError, match="network.in_channels=15; the scene has 12 bands"):
        trained.reader(TINY, fields())
    reader = replace_in_channels(trained, 10).reader(TINY, fields())
    assert reader.standardise == "patch"
    assert reader.components.about == "principal components of 624 pixels"
    assert inference.classify(reader, fields()).shape == (24, 26)


def replace_in_channels(trained, channels: int):
    """The published weights fit any number of components."""
    state = trained.network.state_dict()
    network = LoLASpecViT(replace(trained.network.config, in_channels=channels))
    network.load_state_dict(state)
    return replace(trained, network=network)


def test_components_see_training_pixels_alone_unless_told() -> None:
    (lesson,) = trials.lessons(RANDOM, None)
    assert lesson.scene.labels is not None
    cube = lesson.scene.cube.copy()
    changed = replace(lesson.scene, cube=cube)
    rows, columns = np.unravel_index(lesson.split.test, changed.size)
    cube[rows, columns] += 100
    for how, same in (("training", True), ("all", False)):
        config = replace(RANDOM, features=replace(RANDOM.features, fit=how))
        pair = [sources.components(config, one, lesson.split).matrix for one in (lesson.scene, changed)]
        assert np.allclose(*pair) == same


def test_figures_are_means_over_seeds() -> None:
    found = [trials.Trial("ours", "random", seed, ((8 + seed, 2 - seed), (0, 10)), 1, 1, 0.0, None) for seed in (0, 1)]
    value, deviation = summary(found, "ours", "random")["oa"]
    assert value == pytest.approx(92.5)
    assert deviation == pytest.approx(np.std([90, 95], ddof=1))


def test_majority_takes_the_neighbours_class() -> None:
    classes = np.full((5, 6), 2)
    classes[2, 2], classes[0] = 1, 0
    found = maps.majority(classes)
    assert found[2, 2] == 2
    assert (found[0] == 0).all()


def test_colours_differ() -> None:
    colours = maps.palette(30).astype(int)
    distance = np.abs(colours[:, None] - colours[None]).sum(-1) + 999 * np.eye(31, dtype=int)
    assert distance.min() > 25


def test_mistakes_are_one_line_and_leave_nothing(data: Path, checkpoint: Path, tmp_path: Path) -> None:
    cube = fields().cube
    np.save(tmp_path / "bands.npy", cube[..., :9])
    np.save(tmp_path / "small.npy", cube[:3])
    np.save(tmp_path / "nan.npy", np.where(cube > cube.mean(), np.nan, cube))
    np.save(tmp_path / "complex.npy", cube.astype(np.complex64))
    scipy.io.savemat(tmp_path / "none.mat", {"spectrum": np.ones((4, 4))})
    out = tmp_path / "out" / "map.png"

    def predict(name: str, checkpoint: Path | None = checkpoint, output: Path = out, **options: object) -> object:
        return lambda: TASK.predict(RANDOM, checkpoint, [tmp_path / name], output, quiet=True, **options)

    def train(config: SpectralConfig, where: Path = data) -> object:
        return lambda: TASK.train(config, run_in(tmp_path / "out"), where, quiet=True)

    (tmp_path / "apart").mkdir()
    np.save(tmp_path / "apart" / "a.npy", cube)
    np.save(tmp_path / "apart" / "a_gt.npy", np.ones((9, 9), int))
    calls = {
        "bands has 9 bands; the checkpoint was trained on 12": predict("bands.npy"),
        "small has 3 x 26 pixels; it is smaller than a patch of 5 x 5": predict("small.npy"),
        "holds NaN or infinity": predict("nan.npy"),
        "holds complex numbers": predict("complex.npy"),
        "a cube has 3 axes, and no array in it has; it holds spectrum": predict("none.mat"),
        "no checkpoint is given": predict("bands.npy", None),
        "there is no checkpoint": predict("bands.npy", tmp_path / "nothing"),
        "a map ends in .png, .tif, .tiff": predict("bands.npy", output=tmp_path / "map.jpg"),
        "tile=0; it must be a side in pixels": predict("bands.npy", tile=0),
        "majority=4; it must be 0 or an odd side": predict("bands.npy", majority=4),
        "does not fit the scene, which has 24 x 26 pixels": train(RANDOM, tmp_path / "apart"),
        "unknown array in Fields.mat 'feilds'; did you mean fields": train(replace(RANDOM, data=Data(key="feilds"))),
        "data.classes has 2 names": train(replace(RANDOM, data=Data(classes=("a", "b")))),
        "network.in_channels=13; the scene has 12 bands": train(
            replace(RANDOM, network=replace(NETWORK, in_channels=13))
        ),
        "the labelled pixels lie in 1 such block": train(
            replace(TINY, split=replace(TINY.split, block=60, kinds=("disjoint",)))
        ),
        "it is smaller than a patch of 31 x 31": train(replace(RANDOM, network=replace(NETWORK, spatial_size=31))),
    }
    for words, call in calls.items():
        with pytest.raises(UserError, match=words) as caught:
            call()  # type: ignore[operator]
        assert "\n" not in str(caught.value), words
        assert not (tmp_path / "out").exists(), words


def test_integers_are_read_as_the_numbers_they_are(checkpoint: Path, tmp_path: Path) -> None:
    whole = np.round(fields().cube * 10000).astype(np.uint16)
    np.save(tmp_path / "int.npy", whole)
    np.save(tmp_path / "float.npy", whole.astype(np.float64))
    for name in ("int", "float"):
        TASK.predict(RANDOM, checkpoint, [tmp_path / f"{name}.npy"], tmp_path / f"{name}.tif", quiet=True)
    first, second = (tifffile.imread(tmp_path / f"{name}.tif") for name in ("int", "float"))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": {"train": 0.0}}, "split.train=0.0; it must be a share between 0 and 1"),
        ({"split": {"kinds": ()}}, "each must be random or disjoint"),
        ({"split": {"kinds": ("random", "random")}}, "each at most once"),
        ({"split": {"block": 0}}, "split.block=0"),
    ],
)
def test_impossible_splits(change: dict[str, dict[str, object]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replace(TINY.split, **change["split"])  # type: ignore[arg-type]


def test_impossible_configurations() -> None:
    with pytest.raises(UsageError, match="unknown method to compare with 'swm'; did you mean svm"):
        replace(TINY, compare=("swm",))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="trained=adapters; the network has no adapters"):
        replace(TINY, trained="adapters", network=replace(NETWORK, lora="none"))
    with pytest.raises(UsageError, match="seeds=0"):
        replace(TINY, seeds=0)
    with pytest.raises(UsageError, match="cycle=0"):
        replace(TINY, cycle=0)
    assert set(baselines.CHANGES) | {"svm", "ours"} == set(baselines.WORDS)

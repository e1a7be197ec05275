"""Language models on text, from end to end: trained, taken up again, measured, and made to go on."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from fovea.data.text import corpus as corpora
from fovea.data.text.packing import Packed
from fovea.data.text.tokenizer import Bytes
from fovea.errors import UserError
from fovea.models.language_config import LanguageConfig, Layer
from fovea.tasks.language import text
from fovea.tasks.language.config import TextConfig, TextData
from fovea.tasks.language.measure import foretold
from fovea.tasks.optimisation import Hardware, Optimisation
from fovea.tasks.run import RunDirectory

LINES = [f"{n} times {m} is {n * m}." for n in range(12) for m in range(12)]
CONFIG = TextConfig(
    network=LanguageConfig(257, 32, (Layer("window", {"heads": 2, "window": 24}),), hidden=64),
    data=TextData(length=64, held_out=0.1, measured=4),
    optimisation=Optimisation(
        steps=60, batch=8, algorithm="adamw", lr=1e-2, ema=0.0, validate_every=30, checkpoint_every=30
    ),
    hardware=Hardware(accelerator="cpu"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "lines.jsonl"
    file.write_text("\n".join(json.dumps({"text": line}) for line in LINES * 4))
    return file


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = RunDirectory(tmp_path_factory.mktemp("runs") / "lm", quiet=True)
    text.train(CONFIG, run, data, title="Tables", quiet=True)
    return run


def test_it_learns(run: RunDirectory) -> None:
    measured = json.loads((run.path / "metrics.json").read_text())
    assert measured["bits_per_byte"] < 2.5  # 8 before it has learned anything
    assert math.isclose(measured["perplexity"], math.exp(measured["nats"]))
    page = run.report.read_text()
    assert f"{measured['bits_per_byte']:.3f}" in page
    assert "0: window" in page


def test_what_was_interrupted_goes_on_to_the_same_end(data: Path, run: RunDirectory, tmp_path: Path) -> None:
    broken = RunDirectory(tmp_path / "broken", quiet=True)
    half = replace(CONFIG, optimisation=replace(CONFIG.optimisation, steps=30))
    text.train(half, broken, data, title="Tables", quiet=True)
    text.train(CONFIG, broken, data, title="Tables", resume=True, quiet=True)
    whole, taken_up = (torch.load(r.last, weights_only=True)["players"]["network"] for r in (run, broken))
    assert all(torch.equal(whole[name], taken_up[name]) for name in whole)


def test_evaluation_is_that_of_the_text_alone(run: RunDirectory, data: Path, tmp_path: Path) -> None:
    again = text.evaluate(CONFIG, run.checkpoint, data, quiet=True)
    assert again["bits_per_byte"] == pytest.approx(
        json.loads((run.path / "metrics.json").read_text())["bits_per_byte"], rel=0.2
    )
    (tmp_path / "other.txt").write_text("Completely different words, never seen. " * 9)
    assert text.evaluate(CONFIG, run.checkpoint, tmp_path / "other.txt", quiet=True)["bits_per_byte"] > 4
    made = corpora.write(tmp_path / "corpus", LINES, Bytes())
    assert text.evaluate(CONFIG, run.checkpoint, made.folder, quiet=True)["bits_per_byte"] < 2.5


class Even(nn.Module):
    """Foretells every token alike."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, tokens: torch.Tensor, documents: torch.Tensor | None) -> torch.Tensor:
        return self.nothing.expand(*tokens.shape, 257)


def test_bits_are_counted_by_the_byte(tmp_path: Path) -> None:
    corpus = corpora.write(tmp_path / "corpus", ["a" * 15, "b" * 15], Bytes())  # two documents of 16 tokens
    found = foretold(Even(), Packed(corpus, 31), Bytes())
    # 30 tokens are foretold, all but the one after the first end; 28 of them are bytes, two are ends.
    assert found["nats"] == pytest.approx(math.log(257))
    assert found["bits_per_byte"] == pytest.approx(30 * math.log2(257) / 28)
    assert found["perplexity"] == pytest.approx(257)


def test_texts_go_on_by_themselves_and_together(run: RunDirectory, tmp_path: Path) -> None:
    prompts = {"a.txt": "3 times 4 is ", "b.txt": "11 times", "c.txt": "7"}
    for name, prompt in prompts.items():
        (tmp_path / name).write_text(prompt)
    options = {"new_tokens": 12, "temperature": 0}
    many = text.predict(run.checkpoint, [tmp_path / n for n in prompts], tmp_path / "out", quiet=True, **options)
    assert [path.name for path in many] == ["a-continued.txt", "b-continued.txt", "c-continued.txt"]
    for path, (name, prompt) in zip(many, prompts.items(), strict=True):
        one = text.predict(run.checkpoint, [tmp_path / name], tmp_path / f"one-{name}", quiet=True, **options)
        assert one == [tmp_path / f"one-{name}"]
        assert one[0].read_text() == path.read_text()
        assert path.read_text().startswith(prompt)
        assert 0 < len(path.read_text()) - len(prompt) <= 12
    (written,) = text.predict(
        run.checkpoint, [tmp_path / "b.txt"], tmp_path / "s.txt", quiet=True, stop=" is", **options
    )
    assert " is" not in written.read_text()


def test_writing_is_shown_as_it_comes(run: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("5 times ")
    (written,) = text.predict(run.checkpoint, [tmp_path / "a.txt"], tmp_path / "out.txt", new_tokens=9, temperature=0)
    assert "5 times " + capsys.readouterr().err.rstrip("\n") == written.read_text().rstrip("\n")


def test_a_trained_tokenizer_travels_with_the_weights(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    run = RunDirectory(tmp_path / "run", quiet=True)
    config = replace(
        CONFIG,
        data=replace(CONFIG.data, vocabulary=290, length=32),
        optimisation=replace(CONFIG.optimisation, steps=2, validate_every=2, checkpoint_every=2),
    )
    text.train(config, run, data, title="Tables", quiet=True)
    (tmp_path / "a.txt").write_text("5 times ")
    writing = text.predict(run.checkpoint, [tmp_path / "a.txt"], tmp_path / "out.txt", quiet=True, new_tokens=3)
    assert writing[0].read_text().startswith("5 times ")
    further = RunDirectory(tmp_path / "further", quiet=True)
    text.train(CONFIG, further, data, title="Tables", checkpoint=run.checkpoint, quiet=True)
    assert (further.checkpoint / "tokenizer.json").read_bytes() == (run.checkpoint / "tokenizer.json").read_bytes()
    (run.checkpoint / "tokenizer.json").write_bytes((run.checkpoint / "tokenizer.json").read_bytes() + b" ")
    with pytest.raises(UserError, match=r"the checkpoint was trained with tokenizer\.json:"):
        text.evaluate(CONFIG, run.checkpoint, data, quiet=True)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"data": replace(CONFIG.data, length=99_999)}, "length=99999"),
        ({"data": replace(CONFIG.data, tokenizer="none.json")}, "none.json does not exist"),
        ({"data": replace(CONFIG.data, field="body")}, "no text in field 'body'"),
    ],
)
def test_what_cannot_be_learned_from(data: Path, tmp_path: Path, changes: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        text.train(replace(CONFIG, **changes), RunDirectory(tmp_path / "run", quiet=True), data, title="", quiet=True)


def test_options_and_prompts_that_are_refused(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    (tmp_path / "b.txt").write_text("b")
    with pytest.raises(UserError, match=r"a\.txt is empty"):
        text.predict(run.checkpoint, [tmp_path / "a.txt"], tmp_path / "out.txt", quiet=True)
    with pytest.raises(UserError, match="unknown key 'newtokens'; did you mean new_tokens"):
        text.predict(run.checkpoint, [tmp_path / "b.txt"], tmp_path / "out.txt", quiet=True, newtokens=3)
    with pytest.raises(UserError, match="temperature=-1"):
        text.predict(run.checkpoint, [tmp_path / "b.txt"], tmp_path / "out.txt", quiet=True, temperature=-1)
    with pytest.raises(UserError, match="is the input itself"):
        text.predict(run.checkpoint, [tmp_path / "b.txt"], tmp_path / "b.txt", quiet=True)
    with pytest.raises(UserError, match="no weights come with this system"):
        text.predict(None, [tmp_path / "b.txt"], tmp_path / "out.txt", quiet=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]

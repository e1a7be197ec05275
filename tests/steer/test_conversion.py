"""A model folder in, a model folder out: what it said is learned again beyond the window, and nothing else changes."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

transformers = pytest.importorskip("transformers")

from fovea.cli.main import call  # noqa: E402
from fovea.errors import UserError  # noqa: E402
from fovea.steer.conversion import Distillation, convert, kl, open_converted, open_model  # noqa: E402
from fovea.steer.conversion_config import Conversion  # noqa: E402
from fovea.steer.language_models import install  # noqa: E402
from fovea.tasks.optimisation import Optimisation  # noqa: E402

LENGTH = 32
TOY = Conversion(
    window=6,
    sinks=0,
    chunk=6,
    rate=0.5,
    windows=(4, 7),
    sinks_drawn=(0, 0),
    chunks=(5, 8),
    length=LENGTH,
    gate_lr=5e-2,
    optimisation=Optimisation(
        steps=4, batch=8, algorithm="adamw", lr=1e-2, betas=(0.9, 0.95), warmup=5, schedule="cosine",
        gradient_clip=1.0, ema=0.0, validate_every=100, checkpoint_every=2,
    ),
)  # fmt: skip


def model(kind: str = "Qwen3", **options: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
             "num_key_value_heads": 1, "max_position_embeddings": 64, "vocab_size": 256, "pad_token_id": 0,
             "eos_token_id": None, "bos_token_id": None}  # fmt: skip
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**sizes, "head_dim": 16, **options})
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


def records(count: int, seed: int = 0) -> str:
    """Lines that begin with a capital letter; each ``?`` in them is followed by that letter."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        letter, line = draw.choice("ABCDEFGH"), ""
        while len(line) < LENGTH:
            line += f"?{letter}" if draw.random() < 0.2 else draw.choice("abcd")
        lines.append((letter + line)[:LENGTH])
    return "".join(lines)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that has learned what the records have in common."""
    folder = tmp_path_factory.mktemp("trained")
    learned = model()
    text = torch.tensor(list(records(1024).encode())).reshape(-1, LENGTH)
    optimiser = torch.optim.AdamW(learned.parameters(), lr=1e-2)
    for step in range(150):
        rows = text[torch.randint(len(text), (32,), generator=torch.Generator().manual_seed(step))]
        loss = F.cross_entropy(learned(rows, use_cache=False).logits[:, :-1].flatten(0, 1), rows[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    learned.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(records(64, seed=1))
    return tmp_path / "text.txt"


def answered(learned: Any, rows: torch.Tensor) -> float:
    """The share of the letters behind late question marks that the model says."""
    with torch.no_grad():
        said = learned(rows, use_cache=False).logits.argmax(-1)[:, :-1]
    asked = (rows[:, :-1] == ord("?")) & (torch.arange(LENGTH - 1) > 2 * TOY.window)
    return float((said == rows[:, 1:])[asked].float().mean())


def test_a_trained_model_is_learned_again_beyond_the_window(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(records(512, seed=1))
    config = replace(TOY, optimisation=replace(TOY.optimisation, steps=40, batch=16, checkpoint_every=40))
    measured = convert(trained, tmp_path / "out", tmp_path / "text.txt", config, quiet=True)
    assert measured["kl"] < 0.5 * measured["window_kl"]
    assert measured["agreement"] > measured["window_agreement"]
    rows = torch.tensor(list(records(64, seed=2).encode())).reshape(-1, LENGTH)
    converted, handle = open_converted(tmp_path / "out")
    with_memory = answered(converted, rows)
    with handle.paused():
        assert answered(converted, rows) > 0.9
    with torch.no_grad():
        for memory in handle.memories.values():
            memory.alpha.zero_()
    assert with_memory > answered(converted, rows)


def test_the_models_own_files_are_copied_as_they_are(folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert(folder, out, data, TOY, quiet=True)
    for file in folder.iterdir():
        assert (out / file.name).read_bytes() == file.read_bytes()
    assert {file.name for file in out.iterdir()} - {file.name for file in folder.iterdir()} == {
        "fovea_config.json",
        "fovea_memory.safetensors",
        "training",
    }
    rows = torch.randint(0, 256, (2, LENGTH))
    with torch.no_grad():
        expected = open_model(folder)(rows).logits
        converted, handle = open_converted(out)
        assert not torch.equal(converted(rows).logits, expected)
        handle.remove()
        assert torch.equal(converted(rows).logits, expected)
        assert torch.equal(open_model(out)(rows).logits, expected)


def test_only_memories_learn_and_no_gradient_is_wasted(folder: Path) -> None:
    network = open_model(folder)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    handle = install(network, TOY.plan)
    learner = Distillation(handle, torch.randint(0, 256, (9, LENGTH)), TOY)
    batch = {"tokens": learner.rows, "step": torch.tensor([1])}
    learner.loss("memory", {}, batch)["loss"].backward()
    assert {name for name, p in network.named_parameters() if p.grad is not None} == set(handle.parameters())
    handle.remove()
    assert all(torch.equal(network.state_dict()[name], tensor) for name, tensor in before.items())


def test_sizes_are_drawn_for_each_step(folder: Path) -> None:
    handle = install(open_model(folder), TOY.plan)
    learner = Distillation(handle, torch.randint(0, 256, (9, LENGTH)), TOY)
    drawn = [learner.drawn(step) for step in range(200)]
    assert drawn == [learner.drawn(step) for step in range(200)]
    assert {each["window"] for each in drawn} == {4, 5, 6, 7}
    assert {each["chunk"] for each in drawn} == {5, 6, 7, 8}
    assert len({(each["window"], each["chunk"]) for each in drawn}) == 16
    assert {each["sinks"] for each in drawn} == {0}


def test_an_interrupted_conversion_goes_on_to_the_same_end(
    folder: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(TOY, responses=2, fine_tuning=1)
    whole = convert(folder, tmp_path / "whole", data, config, quiet=True)
    loss = Distillation.loss

    def interrupted(self: Distillation, player: str, networks: Any, batch: Any) -> Any:
        if int(batch["step"][0]) == 3:
            raise KeyboardInterrupt
        return loss(self, player, networks, batch)

    monkeypatch.setattr(Distillation, "loss", interrupted)
    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "parts", data, config, quiet=True)
    monkeypatch.undo()
    assert not (tmp_path / "parts/config.json").exists()
    with pytest.raises(UserError, match="is not empty; choose another folder, or go on with --resume"):
        convert(folder, tmp_path / "parts", data, config, quiet=True)
    assert convert(folder, tmp_path / "parts", data, config, resume=True, quiet=True) == whole
    memories = [(tmp_path / name / "fovea_memory.safetensors").read_bytes() for name in ("parts", "whole")]
    assert memories[0] == memories[1]


def test_a_pattern_needs_no_text(folder: Path, tmp_path: Path) -> None:
    convert(folder, tmp_path / "out", None, Conversion(pattern="blocks:size=4,terms=local(2)+powers"), quiet=True)
    converted, handle = open_converted(tmp_path / "out")
    assert handle.plans[1].pattern == "blocks:size=4,terms=local(2)+powers"
    assert converted(torch.randint(0, 256, (1, 20))).logits.isfinite().all()


def test_divergence() -> None:
    teacher, student = torch.randn(3, 5, 7), torch.randn(3, 5, 7)
    p, q = teacher.softmax(-1), student.softmax(-1)
    torch.testing.assert_close(kl(teacher, student), (p * (p / q).log()).sum(-1).mean())
    assert kl(teacher, teacher) == 0


def test_other_tokenizers(folder: Path, data: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 1, "b": 2, "?": 3}, unk_token="?"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    tokenizer.save(str(folder / "tokenizer.json"))
    words = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "?"}
    (folder / "tokenizer_config.json").write_text(json.dumps(words))
    from fovea.steer.texts import encode

    assert encode(folder, 256)("ab?z") == [1, 2, 3, 3]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (("nowhere", "-o", "out"), 2, "model 'nowhere' does not exist"),
        (("empty", "-o", "out", "memory=none"), 1, "holds no model: there is no config.json"),
        (("broken", "-o", "out", "memory=none"), 1, "broken cannot be read as a causal language model"),
        (("other", "-o", "out", "memory=none"), 1, "has no attention layers of the Llama or Qwen kind"),
        (("model", "-o", "model", "memory=none"), 2, "model is the model itself; name another folder"),
        (("model", "-o", "empty/..", "memory=none"), 2, "is not empty; choose another folder"),
        (("model", "-o", "out"), 2, "--data is needed"),
        (("model", "-o", "out", "--data", "none.txt"), 1, "data 'none.txt' does not exist"),
        (("model", "-o", "out", "--data", "binary.txt"), 1, "binary.txt is no UTF-8 text"),
        (("model", "-o", "out", "--data", "short.txt"), 1, "the text has 3 tokens; 5 sequences of at least 2"),
        (("model", "-o", "out", "--data", "bad.jsonl"), 1, "bad.jsonl, line 2: no text under any of: text, content"),
        (("model", "-o", "out", "--data", "empty"), 1, "empty holds no .txt and no .jsonl"),
        (("model", "-o", "out", "memory=almem", "--data", "short.txt"), 2, "unknown memory 'almem'; did you mean"),
        (("model", "-o", "out", "window=0"), 2, "window=0; it must be at least 1 token"),
        (("model", "-o", "out", "windows=9,3"), 2, "windows=9,3; it must be two rising numbers from 1 on"),
        (("model", "-o", "out", "windw=9"), 2, "unknown key 'windw'; did you mean window"),
        (("model", "-o", "out", "layers=5", "memory=none"), 2, "there is no layer 5: they are 0 to 1"),
        (("model", "-o", "out", "pattern=full"), 2, "pattern 'full' is not causal"),
        (("model", "-o", "out", "optimisation.ema=0.9"), 2, "memories are not averaged"),
    ],
)
def test_mistakes_are_told_in_one_line(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/config.json").write_text("{")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "short.txt").write_text("abc")
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"other": 1}\n')
    if words[0] == "other":
        config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=256, n_positions=16)
        transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path / "other")
    capsys.readouterr()
    assert call(["--quiet", "convert-llm", *words]) == status
    captured = capsys.readouterr()
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_command(folder: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = [
        "window=6", "sinks=1", "chunk=6", "windows=4,7", "sinks_drawn=0,2", "chunks=5,8", "length=32",
        "optimisation.steps=2", "optimisation.batch=2",
    ]  # fmt: skip
    words = ["-q", "convert-llm", str(folder), "-o", str(tmp_path / "out"), "--data", str(data), "--json", *settings]
    assert call(words) == 0
    measured = json.loads(capsys.readouterr().out)
    assert {"folder", "kl", "agreement", "window_kl", "window_agreement"} <= set(measured)

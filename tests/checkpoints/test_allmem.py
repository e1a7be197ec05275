"""Models of transformers, with and without memories, are the same networks here."""

from __future__ import annotations

from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

from fovea.checkpoints.layout import CheckpointMismatch  # noqa: E402
from fovea.checkpoints.official import load_official, to_official  # noqa: E402
from fovea.kernels.memory import RULES  # noqa: E402
from fovea.models.allmem_config import AllMemConfig  # noqa: E402
from fovea.steer.language_models import install  # noqa: E402
from fovea.steer.plan import Plan  # noqa: E402


def model(kind: str, **options: Any) -> Any:
    sizes = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "head_dim": 8,
    }
    torch.manual_seed(1)
    config = getattr(transformers, f"{kind}Config")(**{**sizes, **options})
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("Qwen3", {"tie_word_embeddings": True}, {}),
        ("Qwen3", {"tie_word_embeddings": False}, {}),
        ("Llama", {}, {"head_dim": 8, "rotary_base": 1e4}),
        ("Qwen2", {}, {"head_dim": 8, "rotary_base": 1e4}),
    ],
)
def test_base_models(kind: str, options: dict[str, Any], words: dict[str, Any]) -> None:
    theirs, tokens = model(kind, **options), torch.randint(0, 64, (2, 20))
    words = words | {"norm_eps": theirs.config.rms_norm_eps}
    words["rotary_base"] = theirs.config.rope_parameters["rope_theta"]
    ours = load_official("allmem", theirs.state_dict(), words)
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("memory", sorted(set(RULES) - {"lact-muon"}))  # bfloat16 inside
def test_converted_models_and_back(memory: str) -> None:
    theirs, tokens = model("Qwen3"), torch.randint(0, 64, (2, 20))
    handle = install(theirs, Plan(window=6, sinks=2, memory=memory, chunk=4, rate=0.3, hidden=12))
    for parameter in handle.parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    state = theirs.state_dict()
    base = theirs.config.rope_parameters["rope_theta"]
    words = {"window": 6, "sinks": 2, "chunk": 4, "memory": memory, "rotary_base": base}
    ours = load_official("allmem", state, words)
    with torch.no_grad():
        expected = theirs(tokens, use_cache=False).logits
        torch.testing.assert_close(ours(tokens), expected, rtol=1e-5, atol=1e-5)
        held = ours.start(2)  # type: ignore[operator]
        read = [ours.logits(ours.read(piece, held)) for piece in tokens.split([7, 1, 1, 11], 1)]  # type: ignore[operator]
        torch.testing.assert_close(torch.cat(read, 1), expected, rtol=1e-5, atol=1e-5)
    full = AllMemConfig(64, 32, 2, 4, 2, 8, 48, tied=False, memory_hidden=12, **words)
    back = to_official("allmem", ours, full)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in back)


def test_a_base_checkpoint_has_no_memories() -> None:
    state = model("Qwen3").state_dict()
    with pytest.raises(CheckpointMismatch, match=r"model\.layers\.0\.mem\.w0"):
        load_official("allmem", state, {"memory": "allmem", "window": 4})

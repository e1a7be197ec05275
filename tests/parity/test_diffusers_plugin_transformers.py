"""The language model of the vectors: dense and windowed logits, greedy generation of padded rows."""

from __future__ import annotations

from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

from fovea.steer.language_models import install  # noqa: E402
from fovea.steer.plan import Plan  # noqa: E402

pytestmark = pytest.mark.parity


def model(description: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    words = description["models"]["llama"]
    found = getattr(transformers, words["cls"])(transformers.LlamaConfig(**words["config"]))
    prefix = "state.llama."
    found.load_state_dict({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
    return found.eval()


@torch.no_grad()
def test_logits_and_generation(golden, subtests) -> None:
    description, tensors = golden("diffusers-plugin")
    llama, window = model(description, tensors), description["models"]["llama"]["window"]
    ids, mask = tensors["input.llama.input_ids"], tensors["input.llama.attention_mask"]
    count = tensors["output.llama.generate_dense"].shape[1] - ids.shape[1]
    plans = {
        "dense": (None, "dense", "generate_dense"),
        "a causal pattern": (Plan(pattern="causal"), "dense", "generate_dense"),
        "a window": (Plan(window=window), "sliding_window_4", "generate_window4"),
        "a pattern of the window": (Plan(pattern=f"sliding:left={window - 1}"), "sliding_window_4", "generate_window4"),
    }
    for name, (plan, logits, generated) in plans.items():
        with subtests.test(name):
            handle = None if plan is None else install(llama, plan)
            found = llama(ids, attention_mask=mask, use_cache=False).logits
            expected = tensors[f"output.llama.{logits}"]
            torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], rtol=1e-5, atol=1e-5)
            said = llama.generate(
                ids, attention_mask=mask, max_new_tokens=count, min_new_tokens=count, do_sample=False, eos_token_id=None
            )
            assert torch.equal(said, tensors[f"output.llama.{generated}"])
            if handle is not None:
                handle.remove()

"""Generation: what batches, states, stops and beams must not change, and what is refused."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from fovea.errors import UserError
from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig, Layer, power_attention
from fovea.tasks.language.generation import Sampling, beam_search, generate, stream

PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [3], [5, 5, 5, 5, 1, 0, 2, 2, 4, 6, 1, 1, 3, 0, 5, 6, 2]]


@pytest.fixture(params=["full", "window", "blocks"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    layers = {
        "full": (Layer("full", {"heads": 2}),) * 2,
        "window": (Layer("window", {"heads": 2, "window": 5, "sinks": 1}),) * 2,
        "blocks": power_attention("one-power", 2, size=2, blocks=8, window=2, heads=2),
    }[request.param]
    model = LanguageModel(LanguageConfig(8, 16, layers)).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.4)  # logits that are far apart
    return model


def greedy(model: LanguageModel, prompt: list[int], count: int) -> list[int]:
    """The definition: the whole sequence again for each token."""
    tokens = list(prompt)
    for _ in range(count):
        tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_batches_of_different_lengths(model: LanguageModel) -> None:
    wanted = [greedy(model, prompt, 20) for prompt in PROMPTS]
    for piece in (4096, 4, 1):
        assert generate(model, PROMPTS, 20, piece=piece) == wanted


def test_a_row_does_not_depend_on_the_others(model: LanguageModel) -> None:
    sampling = Sampling(1.3, top_k=5, top_p=0.9, seed=3)
    together = generate(model, PROMPTS, 15, sampling=sampling)
    assert together == generate(model, PROMPTS, 15, sampling=sampling)
    assert generate(model, PROMPTS[:1], 15, sampling=sampling) == together[:1]
    assert generate(model, PROMPTS[:1], 15, sampling=Sampling(1.3, seed=4)) != together[:1]


def test_stops_and_streaming(model: LanguageModel) -> None:
    whole = [greedy(model, prompt, 20) for prompt in PROMPTS]
    stop = [whole[0][3:5]]
    found = generate(model, PROMPTS, 20, stop=stop)
    for row, tokens in zip(found, whole, strict=True):
        ends = [at for at in range(len(tokens) - 1) if tokens[at : at + 2] == stop[0]]
        assert row == (tokens[: ends[0]] if ends else tokens)
    steps = list(stream(model, PROMPTS, 20, stop=stop))
    rows = [[step[row] for step in steps if step[row] is not None] for row in range(3)]
    assert [row[: len(kept)] for row, kept in zip(rows, found, strict=True)] == found
    assert all(row[-2:] == stop[0] or len(row) == 20 for row in rows)


def test_a_state_read_before_is_used_and_left_as_it_is(model: LanguageModel) -> None:
    state = model.start(1)
    model.read(torch.tensor([PROMPTS[2][:9]]), state)
    for _ in range(2):
        assert generate(model, [PROMPTS[2][9:]], 12, state=state) == [greedy(model, PROMPTS[2], 12)]
    both = generate(model, [PROMPTS[2][9:], [1]], 12, state=state)
    assert both == [greedy(model, PROMPTS[2], 12), greedy(model, [*PROMPTS[2][:9], 1], 12)]
    assert state.position.tolist() == [9]


def test_a_beam_as_wide_as_all_continuations_finds_the_best(model: LanguageModel) -> None:
    prompt = PROMPTS[0]
    every = torch.tensor(list(product(range(8), repeat=3)))
    logits = model(torch.cat([torch.tensor(prompt).expand(len(every), -1), every], 1)).detach()
    found = logits[:, len(prompt) - 1 : -1].log_softmax(-1).gather(2, every[..., None]).sum((1, 2))
    scores = dict(zip(map(tuple, every.tolist()), found.tolist(), strict=True))
    beams = beam_search(model, prompt, 3, beams=64)
    best = sorted(scores, key=lambda tokens: -scores[tokens])[:5]
    assert [beam.tokens for beam in beams[:5]] == best
    assert beams[0].log_probability == pytest.approx(scores[best[0]], abs=1e-4)
    assert beam_search(model, prompt, 6, beams=1)[0].tokens == tuple(greedy(model, prompt, 6))
    stop = [[best[0][1]]]
    ended = [beam for beam in beam_search(model, prompt, 3, beams=64, stop=stop) if beam.ended]
    assert ended and all(stop[0][0] not in beam.tokens for beam in ended)


def test_probabilities() -> None:
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    assert Sampling(0).probabilities(logits).tolist() == [[1, 0, 0, 0]]
    torch.testing.assert_close(Sampling(top_k=2).probabilities(logits), torch.tensor([[0.625, 0.375, 0, 0]]))
    torch.testing.assert_close(Sampling(top_p=0.6).probabilities(logits), torch.tensor([[0.625, 0.375, 0, 0]]))
    torch.testing.assert_close(Sampling(top_p=0.5).probabilities(logits), torch.tensor([[1.0, 0, 0, 0]]))
    cold = Sampling(0.5).probabilities(logits)
    torch.testing.assert_close(cold, (logits * 2).softmax(-1))
    assert Sampling(top_k=99).probabilities(logits).count_nonzero() == 4


def test_what_cannot_be_generated(model: LanguageModel) -> None:
    assert generate(model, [], 5) == []
    assert generate(model, [[1]], 0) == [[]]
    for prompts, message in (([[1], []], "prompt 1 is empty"), ([[8]], "prompt 0 has token 8; the model knows 0 to 7")):
        with pytest.raises(UserError, match=message):
            generate(model, prompts, 5)
    for words in ({"temperature": -1.0}, {"top_k": 0}, {"top_p": 0.0}, {"temperature": float("nan")}):
        with pytest.raises(UserError, match=next(iter(words))):
            Sampling(**words)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="stop holds an empty sequence"):
        generate(model, [[1]], 5, stop=[[]])
    with pytest.raises(UserError, match="state has 2 rows"):
        generate(model, [[1]] * 3, 5, state=model.start(2))
    with torch.no_grad():
        model.embedding.weight[3] = torch.nan
    with pytest.raises(UserError, match="row 0: the model's logits are not finite after 0 new tokens"):
        generate(model, [[3, 3]], 5)

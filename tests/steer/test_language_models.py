"""Plans inside small random models of transformers: what they see, in any pieces; removed, nothing is left of them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch

transformers = pytest.importorskip("transformers")

from fovea.errors import UserError  # noqa: E402
from fovea.patterns import parse  # noqa: E402
from fovea.steer.language_models import install, load, read_plans  # noqa: E402
from fovea.steer.plan import Plan  # noqa: E402

SIZES = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "eos_token_id": None,
    "bos_token_id": None,
}
POWER = "blocks:size=4,terms=local(2)+sink(1)+powers"
PLANS = {
    "power": Plan(pattern=POWER),
    "window": Plan(window=6, sinks=2),
    "no sinks": Plan(window=5),
    "memory": Plan(window=6, sinks=2, memory="allmem", chunk=4, rate=0.3),
    "shared": Plan(window=6, memory="linear", chunk=5, rate=0.3, share_out=True),
    "mixed": (Plan(window=6, sinks=1, memory="lact", chunk=4, rate=0.3, layers=(1,)),),
}
ALL = pytest.mark.parametrize("name", list(PLANS))
KINDS = ("Llama", "Qwen3", "Qwen2")


def made(kind: str = "Qwen3", **options: Any) -> Any:
    config = getattr(transformers, f"{kind}Config")(**SIZES, **({"head_dim": 8} if kind == "Qwen3" else {}), **options)
    torch.manual_seed(1)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval()


@pytest.fixture
def model() -> Any:
    return made()


@pytest.fixture(autouse=True)
def no_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


def installed(model: Any, name: str) -> Any:
    handle = install(model, PLANS[name])
    for parameter in handle.parameters().values():
        torch.nn.init.normal_(parameter, std=0.3)
    return handle


def ids(*shape: int) -> torch.Tensor:
    return torch.randint(1, 64, shape or (2, 30))


def generated(model: Any, tokens: torch.Tensor, count: int = 8, **options: Any) -> torch.Tensor:
    mask = options.pop("attention_mask", torch.ones_like(tokens))
    return model.generate(tokens, attention_mask=mask, max_new_tokens=count, do_sample=False, **options)[:, -count:]


def masked(model: Any, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The model under transformers' eager attention with a dense mask of queries by keys."""
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    dense = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    return other(tokens, attention_mask=dense[None, None].expand(len(tokens), 1, -1, -1)).logits


@pytest.mark.parametrize("kind", KINDS)
def test_layers_see_what_the_plan_says(kind: str) -> None:
    model, tokens = made(kind), ids()
    place = torch.arange(30)
    window = (place < place[:, None] + 1) & ((place > place[:, None] - 6) | (place < 2))
    for plan, mask in (
        (Plan(pattern=POWER), torch.from_numpy(parse(POWER).mask(30))),
        (Plan(window=6, sinks=2), window),
    ):
        expected = masked(model, tokens, mask)
        with install(model, plan):
            found = model(tokens).logits
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
        assert (found - model(tokens).logits).abs().max() > 1e-3


@ALL
@pytest.mark.parametrize("kind", KINDS)
def test_removed_leaves_the_model_as_it_was(kind: str, name: str) -> None:
    model, tokens = made(kind), ids()
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    before, said = model(tokens).logits, generated(model, tokens)
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    attributes = {key: set(vars(module)) for key, module in model.named_modules()}
    implementation = model.config._attn_implementation
    handle = installed(model, name)
    assert not torch.equal(model(tokens).logits, before)
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert set(missing) == set(handle.parameters())
    generated(model, tokens)
    with handle.paused():
        assert torch.equal(model(tokens).logits, before)
    handle.remove()
    assert torch.equal(model(tokens).logits, before)
    assert torch.equal(generated(model, tokens), said)
    assert model.config._attn_implementation == implementation
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert {key: set(vars(module)) for key, module in model.named_modules()} == attributes
    after = model.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[key], value) for key, value in weights.items())


@ALL
def test_pieces_and_generation_give_what_one_pass_gives(model: Any, name: str) -> None:
    installed(model, name)
    tokens = ids()
    whole = model(tokens, use_cache=False).logits
    for sizes in ([30], [7, 1, 12, 1, 1, 8], [1] * 30):
        cache, found = None, []
        for piece in tokens.split(sizes, 1):
            out = model(piece, cache=cache, use_cache=True)
            cache = out.cache
            found.append(out.logits)
        torch.testing.assert_close(torch.cat(found, 1), whole, rtol=1e-5, atol=1e-5)
    assert torch.equal(generated(model, tokens), generated(model, tokens, use_cache=False))


@ALL
def test_rows_padded_on_the_left_are_rows_alone(model: Any, name: str) -> None:
    installed(model, name)
    tokens = ids(3, 30)
    mask = torch.ones_like(tokens)
    mask[1, :9] = mask[2, :1] = 0
    logits = model(tokens, attention_mask=mask, position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False).logits
    said = generated(model, tokens, attention_mask=mask)
    for row, start in enumerate((0, 9, 1)):
        alone = tokens[row : row + 1, start:]
        torch.testing.assert_close(logits[row, start:], model(alone, use_cache=False).logits[0], rtol=1e-5, atol=1e-5)
        assert torch.equal(said[row], generated(model, alone)[0])


@ALL
def test_beams_reorder_what_is_kept(model: Any, name: str) -> None:
    installed(model, name)
    tokens = ids(2, 13)
    found = generated(model, tokens, num_beams=3)
    assert torch.equal(found, generated(model, tokens, num_beams=3, use_cache=False))


@ALL
def test_copies_and_pickles_follow_the_plan(model: Any, name: str) -> None:
    installed(model, name)
    tokens = ids(1, 17)
    logits, said = model(tokens).logits, generated(model, tokens)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(tokens).logits, logits)
        assert torch.equal(generated(other, tokens), said)


def test_two_models_with_two_plans(model: Any) -> None:
    other, tokens = made(), ids()
    alone = {}
    for name in ("power", "memory"):
        with install(model, PLANS[name]):
            alone[name] = model(tokens).logits
    with install(model, PLANS["power"]), install(other, PLANS["memory"]):
        assert torch.equal(model(tokens).logits, alone["power"])
        assert torch.equal(other(tokens).logits, alone["memory"])


def test_a_window_as_wide_as_the_text_is_the_model_itself(model: Any) -> None:
    tokens = ids()
    before = model(tokens).logits
    for plan in (Plan(window=30), Plan(window=30, sinks=3, memory="allmem"), Plan(pattern="causal")):
        with install(model, plan):
            torch.testing.assert_close(model(tokens).logits, before, rtol=1e-5, atol=1e-5)


def test_a_new_memory_changes_nothing(model: Any) -> None:
    tokens = ids()
    with install(model, Plan(window=6, sinks=2)):
        before = model(tokens).logits
    with install(model, Plan(window=6, sinks=2, memory="allmem", chunk=4)):
        assert torch.equal(model(tokens).logits, before)


def test_the_cache_keeps_its_size(model: Any) -> None:
    plan = Plan(window=6, sinks=2, memory="allmem", chunk=4, hidden=5)
    handle = install(model, plan)
    cache, sizes = handle.cache(), set()
    for piece in (8, 30, 1, 1, 60):
        model(ids(2, piece), cache=cache)
        sizes.add(cache.layers[0].numbers)
    memory = 2 * (2 * 3 * 5 * 8 + 4 * (2 * 8 + 2)) + 1
    assert sizes == {2 * 2 * 8 * (6 + 2) + memory}
    assert handle.memories[0].state_size() == memory
    assert cache.get_seq_length() == 100


def test_only_memories_learn(model: Any) -> None:
    handle = installed(model, "memory")
    model.requires_grad_(False)
    for parameter in handle.parameters().values():
        parameter.requires_grad_(True)
    with torch.enable_grad():
        model(ids(2, 20)).logits.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == (name in handle.parameters()), name
    assert {name.split(".")[3] for name in handle.parameters()} == {"mem"}
    assert all(parameter.grad.abs().max() > 0 for parameter in handle.parameters().values())


def test_gradients_reach_the_models_own_weights_too(model: Any) -> None:
    install(model, Plan(window=6, sinks=2))
    with torch.enable_grad():
        model(ids(2, 20)).logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_models_with_windows_of_their_own_keep_them_in_other_layers() -> None:
    model = made("Mistral", sliding_window=5)
    tokens = ids()
    expected = {}
    for number in (0, 1):
        with install(model, Plan(window=5, layers=(number,))):
            expected[number] = model(tokens).logits
            assert torch.equal(generated(model, tokens), generated(model, tokens, use_cache=False))
        torch.testing.assert_close(expected[number], model(tokens).logits, rtol=1e-5, atol=1e-5)


def test_saved_plans_and_memories_come_back(model: Any, tmp_path) -> None:
    tokens = ids()
    handle = installed(model, "memory")
    logits = model(tokens).logits
    handle.save(tmp_path)
    handle.remove()
    assert read_plans(tmp_path) == (Plan(window=6, sinks=2, memory="allmem", chunk=4, rate=0.3, layers=(0, 1)),)
    with load(tmp_path, model):
        assert torch.equal(model(tokens).logits, logits)
    with pytest.raises(UserError, match="holds the memories of another model"):
        load(tmp_path, made("Llama", head_dim=16))


def test_low_precision_models_have_float32_memories(model: Any) -> None:
    tokens = ids()
    model.to(torch.bfloat16)
    handle = installed(model, "memory")
    assert handle.memories[0].w0.dtype == torch.float32
    whole = model(tokens, use_cache=False).logits
    torch.testing.assert_close(model(tokens, use_cache=True).logits, whole, rtol=0.1, atol=0.05)
    assert whole.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "pattern=None, window=None; give one of the two"),
        ({"window": 0}, "window=0; it must be at least 1 token"),
        ({"pattern": "causal", "sinks": 1}, "sinks=1; they stand beside a window"),
        ({"pattern": "causal", "memory": "allmem"}, "memory=allmem; a memory stands beside a window"),
        ({"pattern": "full"}, "pattern 'full' is not causal"),
        ({"pattern": "blocs:size=4"}, "'blocs' is no pattern"),
        ({"window": 4, "chunk": 0}, "chunk=0; it must be at least 1 token"),
    ],
)
def test_plans_that_make_no_sense(words: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Plan(**words)


def test_refusals(model: Any) -> None:
    with pytest.raises(UserError, match="there is no layer 7: they are 0 to 1"):
        install(model, Plan(window=4, layers=(7,)))
    with pytest.raises(UserError, match="two plans for layer 0"):
        install(model, [Plan(window=4), Plan(window=5, layers=(0,))])
    with pytest.raises(UserError, match="model is a Linear"):
        install(torch.nn.Linear(2, 2), Plan(window=4))  # type: ignore[arg-type]
    with pytest.raises(UserError, match="unknown memory 'almem'; did you mean allmem"):
        install(model, Plan(window=4, memory="almem"))
    plain = model(ids(1, 5), use_cache=True).cache
    handle = install(model, Plan(window=4, memory="allmem", chunk=3))
    with pytest.raises(UserError, match="follows a plan already"):
        install(model, Plan(window=4))
    with pytest.raises(UserError, match="the cache was filled without the plan"):
        model(ids(1, 5), cache=plain)
    other = made()
    with install(other, Plan(window=4, memory="allmem", chunk=3)) as others:
        cache = others.cache()
        other(ids(1, 5), cache=cache)
        with pytest.raises(UserError, match="the cache is that of another model"):
            model(ids(1, 5), cache=cache)
    cache = handle.cache()
    handle.change(window=5)
    with pytest.raises(UserError, match="made for other windows, sinks or chunks"):
        model(ids(1, 5), cache=cache)
    with pytest.raises(UserError, match="row 1 is padding throughout"):
        model(ids(2, 3), attention_mask=torch.tensor([[1, 1, 1], [0, 0, 0]]))
    with pytest.raises(UserError, match="padding stands between tokens"):
        model(ids(1, 4), attention_mask=torch.tensor([[1, 0, 1, 1]]))
    with pytest.raises(UserError, match="position_ids begin anew within a row"):
        model(ids(1, 4), position_ids=torch.tensor([[0, 1, 0, 1]]), use_cache=False)
    with pytest.raises(UserError, match="give \\[batch, tokens\\]"):
        model(ids(1, 4), attention_mask=torch.zeros(1, 1, 4, 4), use_cache=False)
    with pytest.raises(UserError, match="cannot be cropped"):
        handle.cache().crop(-1)

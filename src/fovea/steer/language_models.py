"""Patterns, windows and memories inside an unmodified Llama- or Qwen-class model of transformers.

    handle = install(model, Plan(pattern="blocks:size=64,terms=local(5)+sink(1)+powers"))
    model.generate(...)
    handle.remove()

Attention goes through transformers' public registries of attention and mask functions; memories listen to a layer's
projections through forward hooks. Weights of the model are untouched, and removing leaves it as it was.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from fovea.errors import MissingExtra, UsageError, UserError
from fovea.steer.plan import ATTRIBUTE, Plan, from_words, to_words

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from fovea.steer.transformers_cache import PlannedCache

PLAN_FILE, MEMORY_FILE = "fovea_config.json", "fovea_memory.safetensors"
"""Beside a model's own files: what its layers look at, and its memories."""

MEMORY = "mem"
"""The name of a memory in its decoder layer: ``model.layers.0.mem.w0``."""


class Handle:
    """A model whose layers follow plans; what :func:`install` returns.

    As a context manager it removes itself at the end. ``plans`` are those of the layers by number.
    """

    def __init__(self, model: PreTrainedModel, plans: dict[int, Plan], layers: dict[int, str]) -> None:
        from fovea.steer.attached_memory import AttachedMemory

        self.model, self.plans = model, plans
        self._names = {number: layers[number] for number in plans}
        self._decoder = model.get_submodule(next(iter(layers.values())).partition(".layers.")[0])
        self._original = model.config._attn_implementation or "eager"
        self._hooks: list[Any] = []
        self.memories: dict[int, AttachedMemory] = {}
        for number, plan in plans.items():
            if plan.memory is not None:
                self.memories[number] = AttachedMemory(self._attention(number), plan)
        for number, memory in self.memories.items():
            self._layer(number).add_module(MEMORY, memory)
            memory.train(model.training)
        self._on()

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()

    @property
    def installed(self) -> bool:
        """Whether the model follows the plans now."""
        return bool(self._hooks)

    def remove(self) -> None:
        """Leave the model as it was before; memories are taken out of it, and stay in ``memories``."""
        self._off()
        for number in self.memories:
            layer = self._layer(number)
            if MEMORY in layer._modules:
                del layer._modules[MEMORY]

    @contextmanager
    def paused(self) -> Iterator[PreTrainedModel]:
        """The model as it was, for a while."""
        self._off()
        try:
            yield self.model
        finally:
            self._on()

    def change(self, *, window: int | None = None, sinks: int | None = None, chunk: int | None = None) -> None:
        """Other sizes in all layers with a window, from the next sequence on."""
        for number, plan in self.plans.items():
            if plan.window is None:
                continue
            self.plans[number] = replace(
                plan,
                window=plan.window if window is None else window,
                sinks=plan.sinks if sinks is None else sinks,
                chunk=plan.chunk if chunk is None else chunk,
            )
            if number in self.memories:
                self.memories[number].chunk = self.plans[number].chunk
        if self.installed:
            self._mark()

    def cache(self) -> PlannedCache:
        """An empty cache for the model: bounded in the layers with a window, with room for memories.

        ``generate`` makes its own.
        """
        from fovea.steer.transformers_cache import PlannedCache

        return PlannedCache(self.model.config.get_text_config(), self.plans, self._decoder)

    def parameters(self) -> dict[str, nn.Parameter]:
        """The parameters of the memories by their names in the model."""
        return {
            f"{self._names[number].rpartition('.')[0]}.{MEMORY}.{name}": parameter
            for number, memory in self.memories.items()
            for name, parameter in memory.named_parameters()
        }

    def save(self, folder: str | Path) -> None:
        """Write the plans and the memories beside the model's own files; each file replaces an older one when whole."""
        from safetensors.torch import save_file

        from fovea.tasks.run import replacing, versions

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        words = {"plans": to_words(_grouped(self.plans)), "versions": {k: versions()[k] for k in ("fovea", "torch")}}
        if self.memories:
            tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.parameters().items()}
            with replacing(folder / MEMORY_FILE) as temporary:
                save_file(tensors, temporary, metadata={"format": "pt"})
        with replacing(folder / PLAN_FILE) as temporary:
            temporary.write_text(json.dumps(words, indent=2) + "\n")

    def _on(self) -> None:
        from fovea.steer import transformers_attention

        if self.installed:
            return
        transformers_attention.register()
        self._hooks = [self._decoder.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for number, memory in self.memories.items():
            self._hooks += memory.attach(self._attention(number))
        self._mark()
        self.model.set_attn_implementation(transformers_attention.NAME)

    def _off(self) -> None:
        if not self.installed:
            return
        for hook in self._hooks:
            hook.remove()
        self._hooks = []
        for number in self.plans:
            delattr(self._attention(number), ATTRIBUTE)
        self.model.set_attn_implementation(self._original)

    def _mark(self) -> None:
        for number, plan in self.plans.items():
            setattr(self._attention(number), ATTRIBUTE, plan)

    def _attention(self, number: int) -> nn.Module:
        return self.model.get_submodule(self._names[number])

    def _layer(self, number: int) -> nn.Module:
        return self.model.get_submodule(self._names[number].rpartition(".")[0])

    def _begin(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Before a forward pass: see that the cache is ours, and say what is padding."""
        from fovea.steer.transformers_attention import leading_padding
        from fovea.steer.transformers_cache import PlannedCache

        word = "cache" if "cache" in inspect.signature(module.forward).parameters else "past_key_values"
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        mask, positions = kwargs.get("attention_mask"), kwargs.get("position_ids")
        if cache is None and torch.is_grad_enabled():
            kwargs = kwargs | {"use_cache": False}
        elif cache is None and (self._default_cache() if kwargs.get("use_cache") is None else kwargs["use_cache"]):
            cache = self.cache()
        elif isinstance(cache, PlannedCache):
            if cache.owner is not self._decoder:
                raise UserError("the cache is that of another model; a model can go on only from its own")
            if cache.plans != self.plans:
                raise UserError("the cache was made for other windows, sinks or chunks; begin with a new one")
        elif cache is not None:
            if cache.get_seq_length():
                raise UserError(
                    "the cache was filled without the plan that the model follows now; begin with a new one"
                )
            cache = self.cache()
        if cache is not None:
            kwargs = {k: v for k, v in kwargs.items() if k not in ("cache", "past_key_values")} | {word: cache}
            if torch.is_grad_enabled() and self.memories:
                raise UserError("reading on from a cache gives no gradients to memories; call it under torch.no_grad()")
            cache.pad(leading_padding(mask) if isinstance(mask, Tensor) and mask.ndim == 2 else None)
        elif mask is None and positions is not None and bool((positions.diff(dim=-1) != 1).any()):
            raise UserError("position_ids begin anew within a row; give each document a row of its own")
        return args, kwargs

    def _default_cache(self) -> bool:
        return bool(getattr(self.model.config.get_text_config(), "use_cache", False))


def install(model: PreTrainedModel, plans: Plan | Sequence[Plan]) -> Handle:
    """Let the layers of a transformers model follow ``plans``; layers of no plan stay as they are.

    Args:
        model: a causal language model of the Llama or Qwen kind.
        plans: one for all layers, or several that each name their ``layers``.

    Raises:
        UserError: where the model has no such layers, has a plan already, or plans name the same layer.
        MissingExtra: without transformers.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("putting plans into a language model", "transformers", "language") from error
    if not isinstance(model, transformers.PreTrainedModel):
        raise UserError(f"model is a {type(model).__name__}; it must be a model of transformers")
    layers = attention_layers(model)
    if not layers:
        raise UserError(
            f"{type(model).__name__} has no attention layers of the Llama or Qwen kind (q_proj, k_proj, v_proj, o_proj)"
        )
    if any(hasattr(model.get_submodule(name), ATTRIBUTE) for name in layers.values()):
        raise UserError(f"this {type(model).__name__} follows a plan already; remove that first")
    chosen: dict[int, Plan] = {}
    for plan in [plans] if isinstance(plans, Plan) else plans:
        for number in layers if plan.layers is None else plan.layers:
            if number not in layers:
                raise UsageError(f"layers={plan.layers}; there is no layer {number}: they are 0 to {max(layers)}")
            if number in chosen:
                raise UsageError(f"two plans for layer {number}; each layer follows one")
            chosen[number] = plan
    if not chosen:
        raise UsageError("no layer follows a plan; give at least one")
    return Handle(model, chosen, layers)


def attention_layers(model: nn.Module) -> dict[int, str]:
    """The names of the causal attention modules by the numbers of their layers."""
    parts = ("q_proj", "k_proj", "v_proj", "o_proj", "head_dim")
    found: dict[int, str] = {}
    for name, module in model.named_modules():
        number = getattr(module, "layer_idx", None)
        known = ".layers." in name and all(hasattr(module, part) for part in parts)
        if known and isinstance(number, int) and getattr(module, "is_causal", False):
            found[number] = name
    return found


def read_plans(folder: str | Path) -> tuple[Plan, ...]:
    """The plans that a folder holds beside a model; ``UserError`` where it holds none."""
    file = Path(folder) / PLAN_FILE
    if not file.is_file():
        raise UserError(f"no plan in {folder}: there is no {PLAN_FILE}")
    try:
        return from_words(json.loads(file.read_text())["plans"])
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{file} holds no plans: {' '.join(str(error).split())}") from error


def load(folder: str | Path, model: PreTrainedModel) -> Handle:
    """Install the plans and memories that ``folder`` holds into ``model``."""
    handle = install(model, read_plans(folder))
    if handle.memories:
        from safetensors.torch import load_file

        found, wanted = load_file(Path(folder) / MEMORY_FILE), handle.parameters()
        if found.keys() != wanted.keys() or any(found[name].shape != wanted[name].shape for name in wanted):
            handle.remove()
            raise UserError(f"{Path(folder) / MEMORY_FILE} holds the memories of another model")
        with torch.no_grad():
            for name, tensor in found.items():
                wanted[name].copy_(tensor)
    return handle


def _grouped(plans: dict[int, Plan]) -> list[Plan]:
    """Equal plans as one that names its layers."""
    groups: dict[Plan, list[int]] = {}
    for number, plan in plans.items():
        groups.setdefault(replace(plan, layers=None), []).append(number)
    return [replace(plan, layers=tuple(numbers)) for plan, numbers in groups.items()]

"""A cache for transformers that keeps what the layers' plans still need, and the memories beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicCache, DynamicLayer

from fovea.errors import UserError
from fovea.steer.plan import Plan


class WindowLayer(CacheLayerMixin):
    """The first ``sinks`` and the last ``window`` keys and values of each row, and the state of a memory.

    ``update`` returns the sinks, what the window holds, and the new tokens, in this order. Rows may begin with padding:
    ``padding [batch]`` says how much, and sinks are the first real tokens.
    """

    is_compileable = False
    is_croppable = False
    is_sliding = True

    def __init__(self, window: int, sinks: int) -> None:
        super().__init__()
        self.window, self.sinks = window, sinks
        self.read = 0
        self.padding: Tensor | None = None
        self.memory: dict[str, Tensor] | None = None

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.device = key_states.device
        batch, heads, _, _ = key_states.shape
        self.keys = key_states.new_zeros(batch, heads, self.sinks, key_states.shape[-1])
        self.values = value_states.new_zeros(batch, heads, self.sinks, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        self.keys, keys = self._with(self.keys, key_states)
        self.values, values = self._with(self.values, value_states)
        self.read += key_states.shape[-2]
        return keys, values

    def _with(self, held: Tensor, new: Tensor) -> tuple[Tensor, Tensor]:
        """What is kept after the new tokens, and what they see."""
        sinks, recent = held[:, :, : self.sinks], held[:, :, self.sinks :]
        place = torch.arange(self.sinks, device=new.device) - self.read
        place = place + (0 if self.padding is None else self.padding.to(new.device)[:, None])
        place = place.expand(len(new), -1)
        comes = (place >= 0) & (place < new.shape[2])
        index = place.clamp(0, new.shape[2] - 1)[:, None, :, None].expand(-1, new.shape[1], -1, new.shape[3])
        sinks = torch.where(comes[:, None, :, None], new.gather(2, index), sinks)
        recent = torch.cat([recent, new], 2)
        return torch.cat([sinks, recent[:, :, -self.window :]], 2), torch.cat([sinks, recent], 2)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.read + query_length, 0

    def get_seq_length(self) -> int:
        return self.read

    def get_max_length(self) -> int:
        return -1

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            raise UserError("a window with sinks has forgotten what it would go back to; it cannot be cropped")

    def reset(self) -> None:
        self.keys = self.values = self.padding = self.memory = None
        self.is_initialized, self.read = False, 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.keys is None or self.values is None:
            return
        rows = indices.to(self.keys.device)
        self.keys, self.values = self.keys[rows], self.values[rows]
        if self.memory is not None:
            self.memory = {name: tensor[rows] for name, tensor in self.memory.items()}

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.keys is not None:
            self.batch_select_indices(torch.arange(len(self.keys)).repeat_interleave(repeats))

    @property
    def numbers(self) -> int:
        """Numbers that a row holds."""
        tensors = [self.keys, self.values, *(self.memory or {}).values()]
        return sum(tensor[0].numel() for tensor in tensors if tensor is not None)


class PlannedCache(Cache):
    """The cache of a model whose layers follow ``plans`` (by layer); ``owner`` is what only that model has."""

    def __init__(self, config: Any, plans: Mapping[int, Plan], owner: object) -> None:
        layers = list(DynamicCache(config=config).layers)
        layers += [DynamicLayer() for _ in range(config.num_hidden_layers - len(layers))]
        for number, plan in plans.items():
            layers[number] = DynamicLayer() if plan.window is None else WindowLayer(plan.window, plan.sinks)
        super().__init__(layers=layers)
        self.owner, self.plans = owner, dict(plans)

    def pad(self, padding: Tensor | None) -> None:
        """Say how many tokens of padding each row begins with."""
        for layer in self.layers:
            if isinstance(layer, WindowLayer):
                layer.padding = padding

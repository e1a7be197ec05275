"""A memory beside a finished attention layer of transformers: it takes what the layer projects, and adds to its
output."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fovea.errors import UserError
from fovea.nn.memory import Memory
from fovea.steer.plan import Plan
from fovea.steer.transformers_attention import Seen
from fovea.steer.transformers_cache import PlannedCache, WindowLayer


class AttachedMemory(Memory):
    """A memory that listens to an attention module of the Llama or Qwen kind (``q_proj``, ``k_proj``, ``v_proj``,
    ``o_proj``; norms of heads where it has them) through hooks. It computes in the precision of its own parameters.

    What it hears in a forward pass is kept until the layer's output is there, and no longer.
    """

    def __init__(self, module: nn.Module, plan: Plan) -> None:
        assert plan.memory is not None
        project: nn.Linear = module.o_proj  # type: ignore[assignment]
        head_dim: int = module.head_dim  # type: ignore[assignment]
        super().__init__(
            project.out_features,
            project.in_features // head_dim,
            module.k_proj.out_features // head_dim,  # type: ignore[operator, union-attr]
            head_dim,
            kind=plan.memory,
            hidden=plan.hidden,
            chunk=plan.chunk,
            rate=plan.rate,
            share_out=plan.share_out,
            checkpointed=True,
        )
        self.to(project.weight.device)
        if self.out is not None:
            with torch.no_grad():
                self.out.weight.copy_(project.weight)
        self._heard: dict[str, Tensor] = {}

    def attach(self, module: nn.Module) -> list[RemovableHandle]:
        """Listen to the module and speak into it, until the handles are removed."""
        query = module.q_norm if hasattr(module, "q_norm") else module.q_proj
        key = module.k_norm if hasattr(module, "k_norm") else module.k_proj
        return [
            module.register_forward_pre_hook(self._hear_input, with_kwargs=True),
            query.register_forward_hook(self._hear_query),  # type: ignore[union-attr]
            key.register_forward_hook(self._hear_key),  # type: ignore[union-attr]
            module.v_proj.register_forward_hook(self._hear_value),  # type: ignore[union-attr]
            module.register_forward_hook(self._speak, with_kwargs=True),
        ]

    def _hear_input(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._heard = {"x": kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]}

    def _hear_query(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._heard["query"] = output

    def _hear_key(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._heard["key"] = output

    def _hear_value(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._heard["value"] = output

    def _speak(self, module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        heard, self._heard = self._heard, {}
        x, dtype = heard["x"], self.alpha.dtype
        shape = (*x.shape[:2], -1, self.head_dim)
        query, key, value = (heard[name].reshape(shape).to(dtype) for name in ("query", "key", "value"))
        seen = kwargs.get("attention_mask")
        if not isinstance(seen, Seen):
            raise UserError("attention_mask: a memory needs to know what is padding; give a mask of [batch, tokens]")
        cache = kwargs.get("cache", kwargs.get("past_key_values"))
        if cache is None:
            added = self(x.to(dtype), query, key, value, project=self._projector(module), documents=_documents(seen, x))
        else:
            number: int = module.layer_idx  # type: ignore[assignment]
            layer = cache.layers[number] if isinstance(cache, PlannedCache) else None
            if not isinstance(layer, WindowLayer):
                raise UserError("this cache has no room for memories; leave the cache to the model")
            added = self._read_on(module, layer, seen, (x.to(dtype), query, key, value))
        out = output[0] if isinstance(output, tuple) else output
        out = out + added.to(out.dtype)
        return (out, *output[1:]) if isinstance(output, tuple) else out

    def _read_on(
        self, module: nn.Module, layer: WindowLayer, seen: Seen, brought: tuple[Tensor, Tensor, Tensor, Tensor]
    ) -> Tensor:
        """The next tokens of each row, with the memory's state in the cache."""
        batch, device = len(brought[0]), brought[0].device
        if layer.memory is None:
            layer.memory = {name: tensor.to(device) for name, tensor in self.start(batch).items()}
        before = (seen.padding.to(device) - seen.offset).clamp(0, seen.length)
        place, row = torch.arange(seen.length, device=device), torch.arange(batch, device=device)[:, None]
        padded = bool(before.any())
        if padded:  # to the other end
            there = (place + before[:, None]) % seen.length
            x, query, key, value = (tensor[row, there] for tensor in brought)
        else:
            x, query, key, value = brought
        lengths = seen.length - before
        out = self.prefill(x, query, key, value, layer.memory, lengths, project=self._projector(module))
        if not padded:
            return out
        return out[row, (place - before[:, None]) % seen.length] * (place >= before[:, None])[..., None]

    def _projector(self, module: nn.Module) -> Any:
        project: nn.Linear = module.o_proj  # type: ignore[assignment]
        return lambda read: project(read.to(project.weight.dtype)).to(read.dtype)


def _documents(seen: Seen, x: Tensor) -> Tensor | None:
    """``-1`` for the padding that rows begin with, 0 elsewhere; none where there is none."""
    if not bool(seen.padding.any()):
        return None
    place = torch.arange(seen.length, device=x.device)
    return -(place < seen.padding.to(x.device)[:, None]).to(torch.int64)

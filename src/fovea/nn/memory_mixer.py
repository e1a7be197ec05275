"""A sliding window with sinks, and beside it a memory that learns while reading (AllMem, arXiv 2602.13680)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fovea.nn.language_attention import SlidingWindowAttention
from fovea.nn.memory import START, Memory
from fovea.nn.mixer import Mixer, State, real_tokens

_PREFIX = "memory."


class MemoryMixer(Mixer):
    """``window(x) + alpha * memory(x)``: what attention sees near, and what a memory has learned of all before.

    A chunk under way is not in the memory yet: with ``window >= chunk`` every token is in one or the other. Memory and
    window each project the input; weights are shared. The state holds ``window + sinks`` keys and values and what
    :meth:`fovea.nn.memory.Memory.state_size` says, at any length.

    Args:
        dim, heads, kv_heads, head_dim, window, sinks, rotary_base, head_norm, bias, backend: of
            :class:`~fovea.nn.language_attention.SlidingWindowAttention`.
        memory, hidden, chunk, rate, share_out, checkpointed: ``kind`` and the rest of
            :class:`~fovea.nn.memory.Memory`.
        alpha: what the memory's share of each channel starts with.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        window: int,
        sinks: int = 0,
        kv_heads: int | None = None,
        head_dim: int | None = None,
        rotary_base: float | None = 10000.0,
        head_norm: bool = False,
        bias: bool = False,
        backend: str = "auto",
        memory: str = "allmem",
        hidden: int | None = None,
        chunk: int = 512,
        rate: float = START,
        share_out: bool = False,
        checkpointed: bool = False,
        alpha: float = 0.0,
    ) -> None:
        super().__init__()
        self.attention = SlidingWindowAttention(
            dim,
            heads,
            window=window,
            sinks=sinks,
            kv_heads=kv_heads,
            head_dim=head_dim,
            rotary_base=rotary_base,
            head_norm=head_norm,
            bias=bias,
            backend=backend,
        )
        self.memory = Memory(
            dim,
            heads,
            self.attention.kv_heads,
            self.attention.head_dim,
            kind=memory,
            hidden=hidden,
            chunk=chunk,
            rate=rate,
            share_out=share_out,
            checkpointed=checkpointed,
        )
        torch.nn.init.constant_(self.memory.alpha, alpha)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        near = self.attention(x, documents)
        if documents is not None:
            documents = documents - documents.min()
        return near + self.memory(x, *self._content(x), project=self.attention.project, documents=documents)

    def start(self, batch: int, like: Tensor) -> State:
        state = self.attention.start(batch, like)
        state.tensors |= {_PREFIX + name: tensor.to(like.device) for name, tensor in self.memory.start(batch).items()}
        return state

    @torch.no_grad()
    def prefill(
        self,
        x: Float[Tensor, "batch tokens dim"],
        state: State,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        count = real_tokens(x, lengths).sum(1)
        if not x.shape[1]:
            return x
        learned = {n.removeprefix(_PREFIX): t for n, t in state.tensors.items() if n.startswith(_PREFIX)}
        near = State(state.position, {n: t for n, t in state.tensors.items() if not n.startswith(_PREFIX)})
        out = self.attention.prefill(x, near, lengths)
        out = out + self.memory.prefill(x, *self._content(x), learned, count, project=self.attention.project)
        state.position = near.position
        state.tensors = near.tensors | {_PREFIX + name: tensor for name, tensor in learned.items()}
        return out

    def state_size(self, length: int) -> int:
        return self.attention.state_size(length) + self.memory.state_size()

    def _content(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values before positions, ``[batch, tokens, heads, head_dim]``."""
        layer = self.attention
        query = layer.query_norm(layer.query(x).unflatten(-1, (layer.heads, layer.head_dim)))
        key = layer.key_norm(layer.key(x).unflatten(-1, (layer.kv_heads, layer.head_dim)))
        return query, key, layer.value(x).unflatten(-1, (layer.kv_heads, layer.head_dim))

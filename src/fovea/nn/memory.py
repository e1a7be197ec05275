"""The memory beside an attention layer: small networks, one a key head, that learn while reading what it projects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from fovea.errors import unknown
from fovea.kernels.memory import RULES, Chunk, check_chunk, read_on, read_through, start_state, state_size
from fovea.nn.linear import Linear

START = 0.001
"""First step size of a token, as LaCT's for chunks of thousands."""
MOMENTUM_BIAS, DECAY_BIAS = -2.0, -4.0
"""What the shares of the last step that is kept, and of the weights that are forgotten, start from, before the
sigmoid."""


class Memory(nn.Module):
    """``alpha * out(norm(f(q)))``, where ``f`` is trained, chunk by chunk, to give a head's values for its keys.

    Queries, keys and values are those of the attention layer before rotary positions: the memory knows no positions and
    the layer's projections serve both. Keys and queries are normalised by their root mean square with learned scales
    that start at ``1 / sqrt(head_dim)`` (unit length); LaCT's memories take ``silu`` and the Euclidean norm instead,
    ``silu`` of values, and gate their output. Each token brings its own step size ``softplus(eta . x)`` and share of
    momentum ``sigmoid(theta . x)``. ``alpha`` starts at 0, so that a new memory changes nothing.

    AllMem (arXiv 2602.13680) publishes no code: the layer is the paper's, the sizes and starts are ours.

    Args:
        dim: channels of the layer.
        heads, kv_heads: of queries, and of keys; a memory for each key head, read by its group of query heads.
        head_dim: channels of a head.
        kind: how it learns; one of :data:`fovea.kernels.memory.RULES`.
        hidden: units of the small network; ``2 * head_dim`` unless given.
        chunk: tokens between two updates; may be changed at any time except within a state.
        rate: the step size that tokens start with.
        share_out: has no output map of its own; the layer's is used.
        checkpointed: in training, keep weights at chunk borders only.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        kind: str = "allmem",
        hidden: int | None = None,
        chunk: int = 512,
        rate: float = START,
        share_out: bool = False,
        checkpointed: bool = False,
    ) -> None:
        super().__init__()
        if kind not in RULES:
            raise unknown("memory", kind, RULES)
        check_chunk(chunk)
        if kv_heads < 1 or heads % kv_heads:
            raise ValueError(f"heads={heads}, kv_heads={kv_heads}; kv_heads must divide heads")
        if rate <= 0:
            raise ValueError(f"rate={rate}; the first step size must be above 0")
        hidden = 2 * head_dim if hidden is None else hidden
        if hidden < 1:
            raise ValueError(f"hidden={hidden}; the memory needs at least 1 unit")
        self.heads, self.kv_heads, self.head_dim, self.hidden = heads, kv_heads, head_dim, hidden
        self.kind, self.rule, self.chunk, self.checkpointed = kind, RULES[kind], chunk, checkpointed
        self.unit = kind.startswith("lact")
        for name, shape in self.rule.network.shapes(head_dim, head_dim, hidden).items():
            self.register_parameter(name, nn.Parameter(_first(name, kv_heads, *shape)))
        if not self.unit:
            self.q_norm, self.k_norm = (nn.RMSNorm(head_dim, eps=1e-6) for _ in range(2))
            for norm in (self.q_norm, self.k_norm):
                nn.init.constant_(norm.weight, head_dim**-0.5)
        self.out_norm = nn.RMSNorm(head_dim, eps=1e-6)
        self.eta = _gate(dim, kv_heads, math.log(math.expm1(rate)))
        self.theta = _gate(dim, kv_heads, MOMENTUM_BIAS) if self.rule.momentum else None
        self.decay = _gate(dim, kv_heads, DECAY_BIAS) if self.rule.decay else None
        self.gate = _gate(dim, heads, 0.0) if self.unit else None
        self.out = None if share_out else Linear(heads * head_dim, dim, bias=False)
        self.alpha = nn.Parameter(torch.zeros(dim))

    @property
    def weights(self) -> dict[str, Tensor]:
        """The first weights of the small networks."""
        network = self.rule.network
        return {name: getattr(self, name) for name in (*network.fast, *network.fixed)}

    def forward(
        self,
        x: Float[Tensor, "batch tokens dim"],
        query: Float[Tensor, "batch tokens heads head_dim"],
        key: Float[Tensor, "batch tokens kv_heads head_dim"],
        value: Float[Tensor, "batch tokens kv_heads head_dim"],
        *,
        project: Callable[[Tensor], Tensor] | None = None,
        documents: Int64[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """What the memory adds to the layer's output for whole sequences.

        Args:
            x: the layer's input.
            query, key, value: before rotary positions.
            project: the layer's output map, for memories that share it.
            documents: numbers the documents of a row, rising along it; each starts from the first weights. Tokens of a
                negative number are padding: not learned from, and 0 comes out.
        """
        asked, brought = self._asked(query), self._brought(x, key, value)
        if documents is None:
            read = self._read(asked, brought)
        else:
            read = torch.zeros_like(asked)
            for index, inside in _documents(documents, self.chunk):
                found = self._read(_take(asked, index), Chunk(**{n: _take(t, index) for n, t in brought.items()}))
                read.flatten(0, 1)[index[inside]] = found[inside]
        out = self._added(x, read, project)
        return out if documents is None else out * (documents >= 0)[..., None]

    def start(self, batch: int) -> dict[str, Tensor]:
        """The state before the first token of each row; see :func:`fovea.kernels.memory.start_state`."""
        return start_state(self.rule, self.weights, batch, self.chunk)

    def state_size(self) -> int:
        """Numbers in the state of a row, at any length."""
        return state_size(self.rule, self.head_dim, self.head_dim, self.hidden, self.kv_heads, self.chunk)

    @torch.no_grad()
    def prefill(
        self,
        x: Float[Tensor, "batch tokens dim"],
        query: Float[Tensor, "batch tokens heads head_dim"],
        key: Float[Tensor, "batch tokens kv_heads head_dim"],
        value: Float[Tensor, "batch tokens kv_heads head_dim"],
        state: dict[str, Tensor],
        lengths: Int64[Tensor, " batch"],
        *,
        project: Callable[[Tensor], Tensor] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """The same for the next tokens of each row, the first ``lengths`` of them; brings ``state`` up to date."""
        asked, brought = self._asked(query), Chunk(**self._brought(x, key, value))
        if state["chunk.key"].shape[2] != self.chunk:
            raise ValueError(f"the state was made for chunks of {state['chunk.key'].shape[2]} tokens, not {self.chunk}")
        read = read_on(self.rule, self.weights, state, _heads_first(asked, self.kv_heads), _turned(brought), lengths)
        return self._added(x, _tokens_first(read), project)

    def _asked(self, query: Tensor) -> Tensor:
        return F.normalize(F.silu(query), dim=-1) if self.unit else self.q_norm(query)

    def _brought(self, x: Tensor, key: Tensor, value: Tensor) -> dict[str, Tensor]:
        """What each token brings, ``[batch, tokens, kv_heads, ...]``; steps in float32 or wider."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        brought = {
            "key": F.normalize(F.silu(key), dim=-1) if self.unit else self.k_norm(key),
            "value": F.silu(value) if self.unit else value,
            "rate": F.softplus(_applied(self.eta, wide))[..., None],
        }
        if self.theta is not None:
            brought["theta"] = _applied(self.theta, wide).sigmoid()
        if self.decay is not None:
            brought["decay"] = _applied(self.decay, wide).sigmoid()
        return brought

    def _read(self, asked: Tensor, brought: dict[str, Tensor] | Chunk) -> Tensor:
        chunk = brought if isinstance(brought, Chunk) else Chunk(**brought)
        query = _heads_first(asked, self.kv_heads)
        checkpointed = self.checkpointed and torch.is_grad_enabled()
        read = read_through(self.rule, self.weights, query, _turned(chunk), self.chunk, checkpointed=checkpointed)
        return _tokens_first(read).to(asked.dtype)

    def _added(self, x: Tensor, read: Tensor, project: Callable[[Tensor], Tensor] | None) -> Tensor:
        read = self.out_norm(read.to(x.dtype))
        if self.gate is not None:
            read = read * F.silu(self.gate(x))[..., None]
        project = self.out if self.out is not None else project
        if project is None:
            raise ValueError("project=None; a memory without an output map of its own needs that of its layer")
        return self.alpha * project(read.flatten(-2))

    def extra_repr(self) -> str:
        return f"kind={self.kind}, kv_heads={self.kv_heads}, hidden={self.hidden}, chunk={self.chunk}"


def _first(name: str, heads: int, rows: int, columns: int) -> Tensor:
    """First weights: rows of about unit length; scales 1, shifts and biases 0."""
    if name == "scale":
        return torch.ones(heads, rows, columns)
    if name in ("shift", "b0", "b1"):
        return torch.zeros(heads, rows, columns)
    return torch.randn(heads, rows, columns) * columns**-0.5


def _gate(dim: int, outputs: int, bias: float) -> nn.Linear:
    """A map that gives the same for every token at first."""
    gate = nn.Linear(dim, outputs)
    nn.init.zeros_(gate.weight)
    nn.init.constant_(gate.bias, bias)
    return gate


def _applied(gate: nn.Linear, wide: Tensor) -> Tensor:
    """The map in the precision of ``wide``, under autocast too."""
    with torch.autocast(wide.device.type, enabled=False):
        return F.linear(wide, gate.weight.to(wide.dtype), gate.bias.to(wide.dtype))


def _heads_first(asked: Tensor, kv_heads: int) -> Tensor:
    """``[batch, tokens, heads, d] -> [batch, kv_heads, group, tokens, d]``."""
    return asked.unflatten(2, (kv_heads, -1)).permute(0, 2, 3, 1, 4)


def _tokens_first(read: Tensor) -> Tensor:
    """``[batch, kv_heads, group, tokens, d] -> [batch, tokens, heads, d]``."""
    return read.permute(0, 3, 1, 2, 4).flatten(2, 3)


def _turned(chunk: Chunk) -> Chunk:
    """Tokens before heads to heads before tokens."""
    return Chunk(**{name: tensor.transpose(1, 2) for name, tensor in chunk.tensors().items()})


def _take(tensor: Tensor, index: Tensor) -> Tensor:
    """``[batch, tokens, ...] -> [documents, longest, ...]``."""
    return tensor.flatten(0, 1)[index]


def _documents(documents: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For documents of equally many chunks together: ``index [documents, longest]`` of their tokens in the flattened
    batch, and which of them are inside the document (the others repeat its last)."""
    tokens = documents.shape[1]
    step = documents.diff(dim=1, prepend=documents[:, :1] - 1)
    if (step < 0).any():
        raise ValueError("documents fall along a row; the documents packed into a row must be numbered in rising order")
    starts = ((step > 0) & (documents >= 0)).flatten().nonzero().flatten()
    ends = torch.cat([step[:, 1:] > 0, step.new_ones(len(step), 1, dtype=torch.bool)], 1) & (documents >= 0)
    lengths = ends.flatten().nonzero().flatten() - starts + 1
    assert bool((lengths <= tokens).all())
    chunks = -(-lengths // chunk)
    for count in chunks.unique().tolist():
        chosen = chunks == count
        place = torch.arange(int(lengths[chosen].max()), device=documents.device)
        last = lengths[chosen, None] - 1
        yield starts[chosen, None] + torch.minimum(place, last), place <= last

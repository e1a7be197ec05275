"""Global linear attention with a Taylor feature map (Based, arXiv 2402.18668, section 4.1)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from fovea.kernels import taylor
from fovea.nn.linear import Linear
from fovea.nn.mixer import Mixer, State, real_tokens


class TaylorAttention(Mixer):
    """Every token weighs all tokens before it by ``1 + s + s^2/2``, ``s = q.k / sqrt(feature_dim)``.

    Queries and keys are as small as ``feature_dim``; there is no position, no norm of them, no bias. What a state holds
    does not grow: a memory of ``1 + f + f(f+1)/2`` features by ``head_dim + 1`` a head, float32 whatever the weights
    are. The weight is at least 1/2 and grows again for ``s < -1``: strongly opposed keys are weighed too
    (:meth:`beyond` tells how often logits leave the range in which the expansion is one of the exponential).

    Shapes: ``[batch, tokens, dim] -> [batch, tokens, dim]``.

    Args:
        dim: channels.
        heads: how many.
        feature_dim: f, of queries and keys.
        head_dim: of values; ``dim / heads`` unless given.
        chunk: tokens whose scores are computed directly.
    """

    def __init__(
        self, dim: int, heads: int, *, feature_dim: int = 16, head_dim: int | None = None, chunk: int = taylor.CHUNK
    ) -> None:
        super().__init__()
        if head_dim is None:
            if heads < 1 or dim % heads:
                raise ValueError(f"heads={heads}; it must divide dim={dim}, or head_dim must be given")
            head_dim = dim // heads
        self.heads, self.feature_dim, self.head_dim, self.chunk = heads, feature_dim, head_dim, chunk
        self.features = taylor.feature_size(feature_dim)
        self.query = Linear(dim, heads * feature_dim, bias=False)
        self.key = Linear(dim, heads * feature_dim, bias=False)
        self.value = Linear(dim, heads * head_dim, bias=False)
        self.project = Linear(heads * head_dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self._projected(x)
        mixed = taylor.chunked(query, key, value, documents=documents, chunk=self.chunk)
        return self.project(mixed.flatten(2))

    def start(self, batch: int, like: Tensor) -> State:
        position = torch.zeros(batch, dtype=torch.long, device=like.device)
        return State(position, {"memory": taylor.new_memory(batch, self.heads, self.feature_dim, self.head_dim, like)})

    @torch.no_grad()
    def prefill(
        self,
        x: Float[Tensor, "batch tokens dim"],
        state: State,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        query, key, value = self._projected(x)
        real = None if lengths is None else real_tokens(x, lengths)
        mixed = taylor.read(query, key, value, state.tensors["memory"], real=real, chunk=self.chunk)
        state.position += x.shape[1] if lengths is None else lengths
        return self.project(mixed.flatten(2))

    def state_size(self, length: int) -> int:
        return self.heads * self.features * (self.head_dim + 1)

    @torch.no_grad()
    def beyond(self, x: Float[Tensor, "batch tokens dim"], bound: float = 3.0) -> float:
        """The share of (query, key) pairs, the key not after the query, whose logit is beyond ``+-bound``."""
        query, key, _ = self._projected(x)
        tokens, found, step = x.shape[1], 0, 256
        for start in range(0, tokens, step):
            logits = torch.einsum("bihf,bjhf->bhij", query[:, start : start + step], key[:, : start + step])
            found += int((logits.abs() > bound * self.feature_dim**0.5).tril(start).sum())
        return found / max(len(x) * self.heads * tokens * (tokens + 1) // 2, 1)

    def _projected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key = (layer(x).unflatten(-1, (self.heads, self.feature_dim)) for layer in (self.query, self.key))
        return query, key, self.value(x).unflatten(-1, (self.heads, self.head_dim))

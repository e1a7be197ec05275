"""A decoder whose layers mix their tokens by any mixer: full and sparse attention, linear attention, memories."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from fovea.errors import UserError
from fovea.models.language_config import MIXERS, LanguageConfig, Layer
from fovea.nn.linear import Linear
from fovea.nn.mixer import Mixer, State
from fovea.nn.swiglu import SwiGLU


def make_mixer(layer: Layer, dim: int) -> Mixer:
    """The mixer that a layer names, for ``dim`` channels."""
    module, _, name = MIXERS[layer.mixer].partition(":")
    return getattr(import_module(module), name)(dim, **layer.options)


class Block(nn.Module):
    """``x + mixer(norm(x))``, then ``x + mlp(norm(x))`` where there is an MLP."""

    def __init__(self, config: LanguageConfig, layer: Layer) -> None:
        super().__init__()
        self.mixer_norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.mixer = make_mixer(layer, config.dim)
        self.mlp_norm = nn.RMSNorm(config.dim, eps=config.norm_eps) if config.hidden else None
        self.mlp = SwiGLU(config.dim, config.hidden, bias=False) if config.hidden else None

    def forward(
        self, x: Float[Tensor, "batch tokens dim"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        return self.after(x + self.mixer(self.mixer_norm(x), documents))

    def read(
        self, x: Float[Tensor, "batch tokens dim"], state: State, lengths: Int64[Tensor, " batch"] | None
    ) -> Float[Tensor, "batch tokens dim"]:
        """The next tokens of each row, with ``state`` brought up to date."""
        mixed = self.mixer_norm(x)
        mixed = (
            self.mixer.step(mixed, state)
            if lengths is None and x.shape[1] == 1
            else self.mixer.prefill(mixed, state, lengths)
        )
        return self.after(x + mixed)

    def after(self, x: Float[Tensor, "batch tokens dim"]) -> Float[Tensor, "batch tokens dim"]:
        """The second half: each token alone."""
        return x if self.mlp is None or self.mlp_norm is None else x + self.mlp(self.mlp_norm(x))


@dataclass
class ModelState:
    """What a model keeps of the tokens that it has read: the state of each layer, and the configuration that it has."""

    layers: list[State]
    config: LanguageConfig

    @property
    def position(self) -> Int64[Tensor, " batch"]:
        """Tokens that each row has read."""
        return self.layers[0].position

    @property
    def bytes(self) -> int:
        return sum(state.bytes for state in self.layers)

    def reorder(self, rows: Int64[Tensor, " rows"]) -> None:
        """Row ``i`` becomes what row ``rows[i]`` was."""
        for state in self.layers:
            state.reorder(rows)


class LanguageModel(nn.Module):
    """Embedding, blocks, norm, and logits of the next token.

    Shapes: ``[batch, tokens]`` numbers of tokens ``-> [batch, tokens, vocabulary]`` logits.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.dim)
        nn.init.normal_(self.embedding.weight, std=0.02)
        self.positions = nn.Embedding(config.positions, config.dim) if config.positions else None
        if self.positions is not None:
            nn.init.normal_(self.positions.weight, std=0.02)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in config.layers)
        self.norm = nn.RMSNorm(config.dim, eps=config.norm_eps)
        self.head = None if config.tied else Linear(config.dim, config.vocabulary, bias=False)

    def forward(
        self, tokens: Int64[Tensor, "batch tokens"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens vocabulary"]:
        """Logits of whole sequences. ``documents`` numbers the documents packed into a row; no token sees across."""
        return self.logits(self.features(tokens, documents))

    def features(
        self, tokens: Int64[Tensor, "batch tokens"], documents: Int64[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens dim"]:
        """What :meth:`logits` makes logits of, where not all of them are wanted."""
        place = torch.arange(tokens.shape[1], device=tokens.device)[None]
        if documents is not None:
            begins = documents.diff(dim=1, prepend=documents[:, :1]) != 0
            place = place - torch.where(begins, place, 0).cummax(1).values
        x = self._embedded(tokens, place)
        for block in self.blocks:
            x = block(x, documents)
        return self.norm(x)

    def start(self, batch: int) -> ModelState:
        """The state of ``batch`` rows that have read nothing."""
        like = self.embedding.weight
        return ModelState([_mixer(block).start(batch, like) for block in self.blocks], self.config)

    @torch.no_grad()
    def read(
        self,
        tokens: Int64[Tensor, "batch tokens"],
        state: ModelState,
        lengths: Int64[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch tokens dim"]:
        """Read the next tokens of each row; returns features, of which :meth:`logits` makes logits.

        ``lengths``: how many tokens are real in each row, where rows are padded on the right (none: all).

        Raises:
            UserError: for the state of a model of another configuration, or more tokens than learned positions.
        """
        if state.config is not self.config and state.config != self.config:
            raise UserError("state comes from a model of another configuration; read the tokens anew with this one")
        place = state.position[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        if lengths is not None:
            real = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
            place = torch.where(real, place, 0)
        x = self._embedded(tokens, place)
        for block, held in zip(self.blocks, state.layers, strict=True):
            x = block.read(x, held, lengths)  # type: ignore[operator]
        return self.norm(x)

    def logits(self, features: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens vocabulary"]:
        return features @ (self.embedding.weight if self.head is None else self.head.weight).T

    def state_size(self, length: int) -> int:
        """Numbers that the states of one row hold after ``length`` tokens, by the formulas of the mixers."""
        return sum(_mixer(block).state_size(length) for block in self.blocks)

    def auxiliary_losses(self) -> dict[str, Tensor]:
        """Losses that mixers add to the task's, by name; of a name that several have, the mean."""
        found: dict[str, list[Tensor]] = {}
        for block in self.blocks:
            for name, loss in _mixer(block).auxiliary_losses().items():
                found.setdefault(name, []).append(loss)
        return {name: torch.stack(losses).mean() for name, losses in found.items()}

    def _embedded(self, tokens: Tensor, place: Tensor) -> Tensor:
        x = self.embedding(tokens)
        if self.positions is None:
            return x
        longest = int(place.max()) + 1 if place.numel() else 0
        if longest > self.config.positions:
            raise UserError(f"a sequence of {longest} tokens; the model has learned {self.config.positions} positions")
        return x + self.positions(place)


def _mixer(block: nn.Module) -> Mixer:
    assert isinstance(block, Block)
    return block.mixer

"""Names and shapes of an official checkpoint against ours: one table of rules a network, read in both directions.

A rule pairs two name patterns. ``{g}`` in both stands for the same number, a final ``*`` for ``weight`` or ``bias``.
Where the official tensor is arranged differently, the rule holds the transformation and its inverse. Where one official
tensor is several of ours, one below the other, rules name its parts ``name#0``, ``name#1`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fovea.errors import UserError

ROWS = 20
"""How many rows of a mismatch table are written out."""


class CheckpointMismatch(UserError):
    """A checkpoint is not one of the network that was asked for.

    Attributes:
        rows: ``(name, expected, found)`` of every tensor that differs, in official names; ``"-"`` where there is none.
    """

    def __init__(self, what: str, rows: list[tuple[str, str, str]]) -> None:
        self.rows = rows
        shown = [("tensor", "expected", "found"), *rows[:ROWS]]
        widths = [max(len(row[column]) for row in shown) for column in range(3)]
        table = "\n".join("  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in shown)
        more = f"\n  and {len(rows) - ROWS} more" if len(rows) > ROWS else ""
        count = "1 tensor differs" if len(rows) == 1 else f"{len(rows)} tensors differ"
        super().__init__(f"the checkpoint is not one of {what}: {count}\n{table}{more}")


@dataclass(frozen=True)
class Transform:
    """How a tensor is rearranged on its way in, and back."""

    to_ours: Callable[[Tensor], Tensor]
    to_official: Callable[[Tensor], Tensor]


def _same(tensor: Tensor) -> Tensor:
    return tensor


SAME = Transform(_same, _same)
POINTWISE = Transform(lambda weight: weight.flatten(1), lambda weight: weight[..., None, None])
"""A 1x1 convolution's weight ``[out, in, 1, 1]`` is a matrix ``[out, in]``."""


def gathered(index: Tensor, grid: tuple[int, ...]) -> Transform:
    """A relative bias table ``[entries, heads]`` to ``[heads, *grid]``: our entry ``i`` is the official ``index[i]``.

    ``index`` must be a permutation, so that the way back exists.
    """
    inverse = torch.empty_like(index)
    inverse[index] = torch.arange(len(index))
    return Transform(
        lambda table: table[index].T.unflatten(1, grid).contiguous(),
        lambda table: table.flatten(1).T[inverse].contiguous(),
    )


@dataclass(frozen=True)
class Rule:
    """Official names that match ``official`` are called ``ours`` here."""

    official: str
    ours: str
    transform: Transform = SAME


@dataclass(frozen=True)
class Layout:
    """All rules of one network with one configuration.

    Attributes:
        what: the network in a few words, for errors.
        rules: tried in order; the first that matches a name counts.
        constants: tensors that the official file holds and we compute; written on the way out, compared on the way in
            when they are there.
        unused: tensors that the official code builds and never uses; written on the way out, of any values on the way
            in, where they may be missing.
        ignored: regular expression of names that files may hold and nobody needs; empty for none.
        stacked: into how many equal parts along the first axis official tensors are cut, by the pattern of their names.
        copies: official names under which another tensor is written once more, and that tensor's; on the way in they
            may be missing, and must be equal.
    """

    what: str
    rules: tuple[Rule, ...]
    constants: dict[str, Tensor] = field(default_factory=dict)
    unused: dict[str, Tensor] = field(default_factory=dict)
    ignored: str = ""
    stacked: dict[str, int] = field(default_factory=dict)
    copies: dict[str, str] = field(default_factory=dict)

    def to_ours(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under our names; those that no rule knows are left out."""
        named = ((self._find(name, ours=False), tensor) for name, tensor in self._cut(official).items())
        return {found[0]: found[1].to_ours(tensor) for found, tensor in named if found is not None}

    def to_official(self, ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under official names. Works for weights and, transformations being rearrangements, gradients.

        Raises:
            KeyError: for a name that no rule knows, which is a mistake in the rules.
        """
        out = {}
        for name, tensor in ours.items():
            found = self._find(name, ours=True)
            if found is None:
                raise KeyError(f"no rule for {name!r} in the layout of {self.what}")
            out[found[0]] = found[1].to_official(tensor)
        out = _joined(out)
        return out | {copy: out[name] for copy, name in self.copies.items() if name in out}

    def check(self, official: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> None:
        """Raise :class:`CheckpointMismatch` unless ``official`` holds exactly what a network with ``ours`` needs."""
        expected = self.to_official(ours)
        rows = []
        for name, tensor in expected.items():
            if name not in official:
                if name not in self.copies:
                    rows.append((name, _shape(tensor), "-"))
            elif official[name].shape != tensor.shape:
                rows.append((name, _shape(tensor), _shape(official[name])))
        for copy, name in self.copies.items():
            if copy in official and name in official and not torch.equal(official[copy], official[name]):
                rows.append((copy, f"equal to {name}", f"{_shape(official[copy])}, other values"))
        for name, tensor in official.items():
            constant, unused = self.constants.get(name), self.unused.get(name)
            if (self.ignored and re.fullmatch(self.ignored, name)) or (unused is not None and name not in expected):
                if unused is not None and unused.shape != tensor.shape:
                    rows.append((name, _shape(unused), _shape(tensor)))
                continue
            if constant is not None and constant.shape != tensor.shape:
                rows.append((name, _shape(constant), _shape(tensor)))
            elif constant is not None and not torch.equal(constant.to(tensor), tensor):
                rows.append((name, f"{_shape(constant)}, computed", f"{_shape(tensor)}, other values"))
            elif constant is None and name not in expected:
                rows.append((name, "-", _shape(tensor)))
        if rows:
            raise CheckpointMismatch(self.what, rows)

    def _cut(self, official: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, those that are ``stacked`` in parts."""
        out = {}
        for name, tensor in official.items():
            parts = next((count for pattern, count in self.stacked.items() if _regex(pattern).fullmatch(name)), None)
            if parts is None:
                out[name] = tensor
            else:
                out |= {f"{name}#{place}": part for place, part in enumerate(tensor.chunk(parts))}
        return out

    def _find(self, name: str, *, ours: bool) -> tuple[str, Transform] | None:
        for rule in self.rules:
            source, target = (rule.ours, rule.official) if ours else (rule.official, rule.ours)
            if match := _regex(source).fullmatch(name):
                return target.replace("*", match.groupdict().get("rest", "")).format(
                    **match.groupdict()
                ), rule.transform
        return None


def require(state: Mapping[str, Tensor], names: Iterable[str], what: str) -> None:
    """Raise :class:`UserError` unless the tensors are there from which the variant is told."""
    for name in names:
        if name not in state:
            begins = ", ".join(list(state)[:3])
            raise UserError(f"not a checkpoint of {what}: it has no {name} (it begins with {begins})")


def _joined(official: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, parts ``name#0``, ``name#1`` one below the other under their common name."""
    out: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for name, tensor in official.items():
        whole, mark, place = name.partition("#")
        if mark:
            stacks.setdefault(whole, {})[int(place)] = tensor
        else:
            out[name] = tensor
    return out | {name: torch.cat([parts[place] for place in sorted(parts)]) for name, parts in stacks.items()}


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))


_CACHE: dict[str, re.Pattern[str]] = {}


def _regex(pattern: str) -> re.Pattern[str]:
    if pattern not in _CACHE:
        text = re.escape(pattern).replace(r"\*", "(?P<rest>weight|bias)")
        _CACHE[pattern] = re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", text))
    return _CACHE[pattern]

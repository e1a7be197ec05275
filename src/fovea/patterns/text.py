"""The text form of patterns: ``neighborhood:window=13x13,stride=4`` and back.

    name                        full                         causal
    name:key=value,...          sliding:left=255             window:size=8x8,shift=4
    name(part; part; ...)       product(causal; neighborhood:window=7)
    blocks                      blocks:size=256,terms=local(5)+sink(1)+powers
    chosen blocks               chosen:size=64,rows=0/0-1/0+2-3//4 (a row each, its blocks one by one or as ranges)

Values of each axis are joined by ``x`` (``7x`` is that of a single axis); flags are 0 or 1; parameters that have
their default value are left out. A part of ``perhead`` may be repeated: ``perhead(causal*4; sliding:left=63*4)``.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import MISSING, fields
from itertools import groupby
from typing import Any

from fovea.patterns.blocks import TERMS, Blocks, Term
from fovea.patterns.chosen import Chosen
from fovea.patterns.compose import PerHead, Union
from fovea.patterns.grid import Causal, Full, Halo, Neighborhood, Product, SlidingWindow, Window
from fovea.patterns.pattern import Pattern

PATTERNS: dict[str, type[Any]] = {
    cls.name: cls
    for cls in (Full, Causal, SlidingWindow, Window, Halo, Neighborhood, Product, Blocks, Chosen, Union, PerHead)
}


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        if value and isinstance(value[0], Term):
            return "+".join(_term(term) for term in value)
        if value and isinstance(value[0], tuple):
            return "/".join(map(_row, value))
        return "x".join(_value(item) for item in value) + ("x" if len(value) == 1 else "")
    return str(int(value)) if isinstance(value, bool) else str(value)


def _term(term: Term) -> str:
    values = [_value(getattr(term, f.name)) for f in fields(term)]  # type: ignore[arg-type]
    return f"{term.name}({','.join(values)})" if values else term.name


def _row(blocks: tuple[int, ...]) -> str:
    runs: list[list[int]] = []
    for block in blocks:
        if runs and block == runs[-1][1] + 1:
            runs[-1][1] = block
        else:
            runs.append([block, block])
    return "+".join(str(low) if low == high else f"{low}-{high}" for low, high in runs)


def _parse_row(text: str, whole: str) -> tuple[int, ...]:
    blocks: list[int] = []
    for run in filter(None, text.strip().split("+")):
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", run)
        if found is None:
            raise ValueError(f"{whole!r}: {run!r} must be the number of a block or a range of them such as 2-5")
        blocks.extend(range(int(found[1]), int(found[2] or found[1]) + 1))
    return tuple(blocks)


def to_text(pattern: Pattern) -> str:
    """The stable text form of a pattern."""
    if isinstance(pattern, Product | Union):
        return f"{pattern.name}({'; '.join(map(to_text, pattern.parts))})"
    if isinstance(pattern, PerHead):
        runs = [(part, len(list(run))) for part, run in groupby(pattern.parts)]
        return f"perhead({'; '.join(to_text(part) + (f'*{n}' if n > 1 else '') for part, n in runs)})"
    shown = [
        f"{f.name}={_value(value)}"
        for f in fields(pattern)  # type: ignore[arg-type]
        if (value := getattr(pattern, f.name)) != f.default or f.default is MISSING
    ]
    return f"{pattern.name}:{','.join(shown)}" if shown else pattern.name


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {close[0]!r}? It" if close else "it"


def _split(text: str, separator: str) -> list[str]:
    """Split at separators that stand outside parentheses."""
    parts, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == separator and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return [part.strip() for part in parts]


def _number(text: str, whole: str, key: str) -> Any:
    text = {"true": "1", "false": "0"}.get(text, text)
    if re.fullmatch(r"-?\d+((x-?\d+)+|x)?", text) is None:
        raise ValueError(f"{whole!r}: {key}={text!r} must be a whole number, or one an axis such as 7x7")
    numbers = tuple(int(part) for part in text.removesuffix("x").split("x"))
    return numbers if "x" in text else numbers[0]


def _parse_term(text: str, whole: str) -> Term:
    match = re.fullmatch(r"(\w+)(?:\(([^()]*)\))?", text)
    if match is None or match[1] not in TERMS:
        raise ValueError(f"{whole!r}: {text!r} is no term; terms are {', '.join(TERMS)}")
    cls = TERMS[match[1]]
    values = [_number(part.strip(), whole, match[1]) for part in (match[2] or "").split(",") if part.strip()]
    if match[1] == "offsets" and values and isinstance(values[0], int):
        values = [tuple(values)]
    try:
        return cls(*values)
    except TypeError:
        names = ", ".join(f.name for f in fields(cls))  # type: ignore[arg-type]
        raise ValueError(f"{whole!r}: {text!r} has {len(values)} values; {cls.name} takes ({names})") from None


def parse(text: str) -> Pattern:
    """The pattern that a text describes; raises ``ValueError`` with what was wrong and what there is.

    >>> parse("neighborhood:window=13x13,stride=4")
    Neighborhood(window=(13, 13), stride=4, dilation=1, causal=False)
    """
    text = text.strip()
    match = re.fullmatch(r"(\w+)\s*(?:\((.*)\)|:(.*))?", text, flags=re.DOTALL)
    if match is None:
        raise ValueError(f"{text!r} is no pattern; write e.g. 'neighborhood:window=13x13' or 'union(causal; full)'")
    name, inner, arguments = match.groups()
    if name not in PATTERNS:
        raise ValueError(
            f"{name!r} is no pattern; {_nearest(name, list(PATTERNS))} may be one of: {', '.join(PATTERNS)}"
        )
    cls = PATTERNS[name]
    if cls in (Product, Union, PerHead):
        if inner is None:
            raise ValueError(f"{text!r}: write the parts in parentheses, e.g. {name}(causal; full)")
        parts: list[Any] = []
        for part in _split(inner, ";"):
            repeated = re.fullmatch(r"(.*?)\s*\*\s*(\d+)", part, flags=re.DOTALL) if cls is PerHead else None
            parts += [parse(repeated[1])] * int(repeated[2]) if repeated else [parse(part)]
        return cls(tuple(parts))
    if inner is not None:
        raise ValueError(f"{text!r}: parameters of {name} follow a colon, e.g. '{name}:key=value'")
    known = {f.name: f for f in fields(cls)}
    values: dict[str, Any] = {}
    for item in _split(arguments or "", ","):
        if not item:
            continue
        key, _, value = (part.strip() for part in item.partition("="))
        if key not in known:
            nearest = _nearest(key, list(known))
            raise ValueError(f"{text!r}: {name} has no {key!r}; {nearest} may be: {', '.join(known)}")
        if key in values:
            raise ValueError(f"{text!r}: {key} is given twice")
        if key == "terms":
            values[key] = tuple(_parse_term(term, text) for term in _split(value, "+"))
        elif key == "rows":
            values[key] = tuple(_parse_row(row, text) for row in value.split("/"))
        elif key == "border":
            values[key] = value
        elif key == "causal":
            number = _number(value, text, key)
            if any(flag not in (0, 1) for flag in (number if isinstance(number, tuple) else (number,))):
                raise ValueError(f"{text!r}: {key}={value!r} must be 0 or 1, or one an axis such as 1x0")
            values[key] = tuple(map(bool, number)) if isinstance(number, tuple) else bool(number)
        else:
            values[key] = _number(value, text, key)
    missing = [n for n, f in known.items() if f.default is MISSING and n not in values]
    if missing:
        raise ValueError(f"{text!r}: {name} needs {', '.join(missing)}")
    return cls(**values)

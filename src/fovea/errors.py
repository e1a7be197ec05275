"""Mistakes that a user can mend: one line says what was wrong and what there is instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something the user asked for cannot be done. The message is one line, written for the one who reads it.

    On the command line it is printed without a traceback, and the exit status is :attr:`exit_status`.
    """

    exit_status = 1


class UsageError(UserError):
    """The request itself is wrong: an unknown name, a value out of range, arguments that contradict each other."""

    exit_status = 2


class MissingExtra(UserError):
    """An optional dependency is needed and not installed.

    Args:
        purpose: what needs it, as the subject of a sentence ("drawing a pattern").
        package: what is missing ("matplotlib").
        extra: the extra of fovea that installs it ("restoration"), or none where the package stands alone.
    """

    def __init__(self, purpose: str, package: str, extra: str | None = None) -> None:
        remedy = f"pip install 'fovea[{extra}]'" if extra else f"pip install {package}"
        super().__init__(f"{purpose} needs {package}, which is not installed: {remedy}")
        self.package, self.extra = package, extra


def unknown(kind: str, word: str, known: Iterable[str], hint: str = "") -> UsageError:
    """The error for a name that does not exist: the nearest names, and all of them where there are few.

    Of dotted names, those that end in the word are nearest: ``steps`` finds ``optimisation.steps``.

    >>> print(unknown("preset", "dmeo", ["demo", "paper-x2"]))
    unknown preset 'dmeo'; did you mean demo? There are: demo, paper-x2
    """
    names = list(known)
    whole = [name for name in names if name.endswith(f".{word}")]
    near = whole or difflib.get_close_matches(word, names, n=3, cutoff=0.6)
    text = f"unknown {kind} {word!r}"
    if near:
        text += f"; did you mean {' or '.join(near)}?"
    if not names:
        text += "; there are none"
    elif len(names) <= 8:
        text += f"{' There' if near else '; there'} are: {', '.join(names)}"
    if hint:
        text += f" {hint}" if text.endswith("?") else f"; {hint}"
    return UsageError(text)

"""Triton's interpreter, which runs the kernels on the CPU: for tests, with ``TRITON_INTERPRET=1``."""

from __future__ import annotations

import os
from typing import Any


def interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def mend() -> None:
    """Make the interpreter of Triton 3.6 fit for our kernels.

    Loops may run to a loaded bound: for it the interpreter makes a Python integer of an array of one element, which
    NumPy refuses since 2.4. And integers are added once, not a second time in 64 bits to look for overflow, which takes
    half of the time.
    """
    from triton.runtime import interpreter

    patch = interpreter._patch_lang_tensor
    if getattr(patch, "mended", False):
        return

    def patched(tensor: Any, scope: Any) -> None:
        patch(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    patched.mended = True  # type: ignore[attr-defined]
    interpreter._patch_lang_tensor = patched
    interpreter.interpreter_builder.options = interpreter.InterpreterOptions(sanitize_overflow=False)

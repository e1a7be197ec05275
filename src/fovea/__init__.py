"""Attention that looks only where it must."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fovea.kernels.attention import attention as attention

__version__ = "0.1.0"

__all__ = ["__version__", "attention"]


def __getattr__(name: str) -> Any:
    # torch is imported when the operator is first asked for, so that `import fovea` stays light.
    if name == "attention":
        from fovea.kernels.attention import attention

        return attention
    raise AttributeError(f"module 'fovea' has no attribute {name!r}")

"""The linear map of transformers."""

from __future__ import annotations

from torch import nn


class Linear(nn.Linear):
    """``nn.Linear`` that starts as transformers do: weights from a normal of deviation 0.02 cut at 2, biases 0."""

    def reset_parameters(self) -> None:
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

"""Language models of Superlinear attention: a search for spans above layers that mix what lies before each token.

The search reads single keys, about the square root of them, so a key must tell what its span holds (arXiv 2601.18401,
step 0): each attention layer stands on a short convolution and on linear attention, whose outputs are sums over all
tokens before. The network is a :class:`~fovea.models.language.LanguageModel` of the layers that a configuration lists.
"""

from __future__ import annotations

from math import sqrt

from torch import nn

from fovea.models.language import LanguageModel
from fovea.models.superlinear_config import SuperlinearConfig
from fovea.nn.gated_convolution import GatedConvolution
from fovea.nn.span_search import SuperlinearAttention
from fovea.nn.swiglu import SwiGLU
from fovea.nn.taylor_attention import TaylorAttention


def superlinear(config: SuperlinearConfig) -> LanguageModel:
    """The network of a configuration, at random; maps that end a residual branch start smaller with depth."""
    language = config.language()
    network = LanguageModel(language)
    for module in network.modules():
        if isinstance(module, (SwiGLU, TaylorAttention, SuperlinearAttention)):
            nn.init.normal_(module.project.weight, std=0.02 / sqrt(2 * len(language.layers)))
        elif isinstance(module, GatedConvolution):
            nn.init.normal_(module.output.weight, std=0.02 / sqrt(2 * len(language.layers)))
    return network

"""Based: a language model of short gated convolutions, Taylor linear attention and a small exact window.

Three cheap layers divide the work (arXiv 2402.18668, sections 3 and 4): convolutions move tokens by a place or two, a
window compares the nearest tokens exactly, and linear attention recalls what lies further back from a state of fixed
size. The network is a :class:`~fovea.models.language.LanguageModel` of the layers that the configuration lists.
"""

from __future__ import annotations

from math import sqrt

from torch import nn

from fovea.models.based_config import BasedConfig
from fovea.models.language import LanguageModel
from fovea.nn.gated_convolution import GatedConvolution
from fovea.nn.language_attention import SlidingWindowAttention
from fovea.nn.swiglu import SwiGLU
from fovea.nn.taylor_attention import TaylorAttention


def based(config: BasedConfig) -> LanguageModel:
    """The network of a configuration, at random as its authors start it.

    Linear maps and the embedding are normal with deviation 0.02, biases 0; maps that end a residual branch of attention
    or of an MLP have ``0.02 / sqrt(2 layers)``.
    """
    network = LanguageModel(config.language())
    for module in network.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
    for module in network.modules():
        if isinstance(module, (SwiGLU, TaylorAttention, SlidingWindowAttention)):
            nn.init.normal_(module.project.weight, std=0.02 / sqrt(2 * config.n_layer))
        elif isinstance(module, GatedConvolution):
            nn.init.normal_(module.output.weight, std=0.02 / sqrt(2 * config.n_layer))
    return network

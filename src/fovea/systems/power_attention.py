"""Blocks at powers of two (arXiv 2503.03588)."""

from __future__ import annotations

from fovea.models.language_config import LanguageConfig, Layer
from fovea.systems.system import Card, Claim, System, View
from fovea.tasks.language.config import RelayConfig, TextData

SPARSE = Layer("blocks", {"heads": 4, "pattern": "blocks:size=16,terms=local(3)+sink(1)+powers"})
DEMO = RelayConfig(network=LanguageConfig(257, 128, (SPARSE,) * 4, hidden=256), data=TextData(length=1024))
"""How far a value is found; ``fovea train`` takes the small network that learns text with blocks of 16 tokens."""

SYSTEM = System(
    card=Card(
        slug="power-attention",
        title="PowerAttention: Exponentially Scaling of Receptive Fields for Effective Sparse Attention",
        about="Blocks at powers of two",
        year=2025,
        authors=11,
        paper="arXiv:2503.03588",
        code=None,
        licence=None,
        area="language",
        idea="Lets each block of tokens see the blocks 1, 2, 4, 8 and so on back besides its neighbours and the "
        "first, so that any earlier block is a few layers away.",
        carried_by=("patterns", "nn", "models", "tasks", "steer"),
    ),
    presets={"demo": DEMO},
    task="fovea.tasks.language.relay_study",
    claims=(
        Claim(
            "reach-of-patterns",
            "At one budget of key blocks, powers of two reach every block in fewer layers than the baselines do.",
            "any of N blocks within log2(N) layers (proof); counts are not given",
            "fovea.tasks.language.relay_claims:reach",
        ),
        Claim(
            "relay",
            "A trained model finds a value wherever its pattern reaches within its layers, and only there.",
            "passkey at 32k tokens: solved by PowerAttention and stride slash, lost by a sliding window from 16k on",
            "fovea.tasks.language.relay_claims:relay",
        ),
        Claim(
            "cost-by-length",
            "Attention costs little more than in proportion to the length.",
            "O(N log^2 N) time; at 128k tokens the attention kernel is 21.6 times as fast as full attention (A800)",
            "fovea.tasks.language.relay_claims:slopes",
        ),
    ),
    views=(
        View("power blocks", "blocks:size=8,terms=local(5)+sink(1)+powers", (512,)),
        View("baseline: sliding blocks", "blocks:size=8,terms=local(9)+sink(1)", (512,)),
        View("baseline: every so many blocks", "blocks:size=8,terms=local(6)+sink(1)+every(16)", (512,)),
    ),
)

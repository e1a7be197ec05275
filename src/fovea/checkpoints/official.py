"""Networks from the checkpoints that their authors published, and back.

network = load_official("hat", torch.load("HAT_SRx4.pth"))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from fovea.checkpoints import allmem, based, dinat, hat, hbformer, lola_specvit, swin_unetr, unet_discriminator
from fovea.checkpoints.folder import save
from fovea.checkpoints.layout import Layout
from fovea.checkpoints.reading import read, weights
from fovea.errors import UsageError, UserError, unknown
from fovea.models import (
    allmem_config,
    based_config,
    dinat_config,
    hat_config,
    hbformer_config,
    lola_specvit_config,
    swin_unetr_config,
)
from fovea.models.dinat import DiNAT
from fovea.models.hat import HAT
from fovea.models.hbformer import HBFormer
from fovea.models.language import LanguageModel
from fovea.models.language_config import LanguageConfig
from fovea.models.lola_specvit import LoLASpecViT
from fovea.models.swin_unetr import SwinUNETR
from fovea.models.unet_discriminator import UNetDiscriminator

T = TypeVar("T")
Config = Mapping[str, Any] | str | Any


@dataclass(frozen=True)
class Official:
    """How one system's official checkpoints become a network of ours.

    Attributes:
        build: the network from a full configuration.
        layout: the rules of names for a network that ``build`` made.
        configure: the full configuration from what the caller said (words, name of a variant, or none) and the weights.
        prefix: what some files put before every name.
        renamed: the state under the names that ``layout`` knows, where files of several codes differ.
    """

    build: Callable[[Any], nn.Module]
    layout: Callable[[Any], Layout]
    configure: Callable[[Config | None, Mapping[str, Tensor]], Any]
    prefix: str = ""
    renamed: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] = dict


def _hat(config: Config | None, state: Mapping[str, Tensor]) -> hat_config.HATConfig:
    return _configured(hat_config.HATConfig, hat_config.VARIANTS, config, lambda: hat.infer(state))


def _dinat(config: Config | None, state: Mapping[str, Tensor]) -> dinat_config.DiNATConfig:
    if config is None:
        raise UsageError(
            "config=None; dilations leave no trace in the weights, so say which network this is: a mapping with "
            f"dilations, or one of {', '.join(dinat_config.VARIANTS)}"
        )
    return _configured(dinat_config.DiNATConfig, dinat_config.VARIANTS, config, lambda: dinat.infer(state))


def _hbformer(config: Config | None, state: Mapping[str, Tensor]) -> hbformer_config.HBFormerConfig:
    said = hbformer.words(config) if isinstance(config, Mapping) else config
    return _configured(hbformer_config.HBFormerConfig, hbformer_config.VARIANTS, said, lambda: hbformer.infer(state))


def _lola_specvit(config: Config | None, state: Mapping[str, Tensor]) -> lola_specvit_config.LoLASpecViTConfig:
    variants = lola_specvit_config.VARIANTS
    said = {"variant": config} if isinstance(config, str) else config
    found = lola_specvit.infer(state)
    if isinstance(said, Mapping) and "variant" in said:
        said = dict(said)
        found["variant"] = said.pop("variant")
        if found["variant"] not in variants:
            raise unknown("variant", str(found["variant"]), variants)
    return _configured(lola_specvit_config.LoLASpecViTConfig, variants, said, lambda: found)


def _swin_unetr(config: Config | None, state: Mapping[str, Tensor]) -> swin_unetr_config.SwinUNETRConfig:
    variants = swin_unetr_config.VARIANTS
    said = swin_unetr.words(config) if isinstance(config, Mapping) else config
    return _configured(swin_unetr_config.SwinUNETRConfig, variants, said, lambda: swin_unetr.infer(state))


def _based(config: Config | None, state: Mapping[str, Tensor]) -> LanguageConfig:
    if isinstance(config, LanguageConfig):
        return config
    said = based.words(config) if isinstance(config, Mapping) else config
    feature_dim = said.get("feature_dim", 16) if isinstance(said, dict) else 16
    variants = based_config.VARIANTS
    return _configured(based_config.BasedConfig, variants, said, lambda: based.infer(state, feature_dim)).language()


def _allmem(config: Config | None, state: Mapping[str, Tensor]) -> allmem_config.AllMemConfig:
    head_dim = config.get("head_dim") if isinstance(config, Mapping) else None
    variants = allmem_config.VARIANTS
    return _configured(allmem_config.AllMemConfig, variants, config, lambda: allmem.infer(state, head_dim))


def _discriminator(config: Config | None, state: Mapping[str, Tensor]) -> dict[str, Any]:
    found = unet_discriminator.infer(state)
    words = config if isinstance(config, Mapping) else {}
    for said, ours in (("disc_num_feat", "num_feat"), ("num_feat", "num_feat"), ("in_chans", "in_chans")):
        if said in words:
            found[ours] = words[said]
    return found


def _configured(
    kind: type[T], variants: Mapping[str, T], config: Config | None, infer: Callable[[], dict[str, Any]]
) -> T:
    """The configuration itself; a variant by name; or words over those of a variant or over what the weights tell."""
    if isinstance(config, kind):
        return config
    words = {"variant": config} if isinstance(config, str) else dict(config or {})
    variant = words.pop("variant", None)
    words.pop("type", None)  # the class name that BasicSR's option files hold beside the words
    if variant is not None and variant not in variants:
        raise unknown("variant", str(variant), variants)
    known = [field.name for field in fields(cast(Any, kind))]
    for word in words:
        if word not in known:
            raise unknown(f"word in config ({kind.__name__})", word, [*known, "variant"])
    if variant is not None:
        return replace(cast(Any, variants[variant]), **words)
    return kind(**{**infer(), **words})


OFFICIAL: dict[str, Official] = {
    "allmem": Official(lambda config: LanguageModel(config.language()), allmem.layout, _allmem, renamed=allmem.renamed),
    "based": Official(LanguageModel, based.layout, _based, renamed=based.renamed),
    "hat": Official(HAT, hat.layout, _hat),
    "fna": Official(DiNAT, dinat.layout, _dinat),
    "hbformer": Official(HBFormer, hbformer.layout, _hbformer),
    "lola-specvit": Official(LoLASpecViT, lola_specvit.layout, _lola_specvit),
    "swin-unetr": Official(SwinUNETR, swin_unetr.layout, _swin_unetr, renamed=swin_unetr.renamed),
    "hat-real": Official(
        lambda words: UNetDiscriminator(**words), lambda _: unet_discriminator.layout(), _discriminator, "disc."
    ),
}


def load_official(slug: str, state: Mapping[str, Any], config: Config | None = None) -> nn.Module:
    """Our network with official weights, in evaluation mode.

    Args:
        slug: ``hat`` (also Real-HAT's generator), ``fna`` (NAT and DiNAT), ``hbformer``, ``lola-specvit``,
            ``swin-unetr``, ``based``, ``allmem`` (transformers' Llama- and Qwen-class models, with its memories or
            without) or ``hat-real`` (Real-HAT's discriminator).
        state: official names and tensors, bare or under ``params_ema``, ``params``, ``state_dict``.
        config: official constructor's words, the name of a published variant (also as the word ``variant``, with others
            over it), or our configuration. Words left out are read from the shapes of the weights. Needed for ``fna``.

    Raises:
        CheckpointMismatch: with a table of all that differs, when the weights are those of another network.
        UserError: when they are no weights, or not finite.
    """
    return _load(slug, state, config)[0]


def layout_of(slug: str, config: Any) -> Layout:
    """The rules between official names and ours for a system and its full configuration."""
    return _system(slug).layout(config)


def to_official(slug: str, network: nn.Module, config: Any) -> dict[str, Tensor]:
    """The network's weights as its official code would save them, computed tensors included."""
    layout = layout_of(slug, config)
    return {**layout.constants, **layout.unused, **layout.to_official(network.state_dict())}


def convert(slug: str, path: str | Path, out: str | Path, config: Config | None = None) -> Path:
    """An official checkpoint file as a folder of ours (``model.safetensors`` and ``config.json``); returns the folder.

    Raises:
        CheckpointMismatch, UserError: as :func:`load_official` does.
    """
    _system(slug)  # an unknown one is told before a large file is read
    network, full = _load(slug, read(path), config)
    save(out, network, full, {"converted_from": Path(path).name, "system": slug})
    return Path(out)


def _system(slug: str) -> Official:
    if slug not in OFFICIAL:
        raise unknown("system with official checkpoints", slug, OFFICIAL)
    return OFFICIAL[slug]


def _load(slug: str, content: Mapping[str, Any], config: Config | None) -> tuple[nn.Module, Any]:
    official = _system(slug)
    state = weights(content)
    if official.prefix and all(name.startswith(official.prefix) for name in state):
        state = {name.removeprefix(official.prefix): tensor for name, tensor in state.items()}
    state = official.renamed(state)
    try:
        full = official.configure(config, state)
    except (KeyError, IndexError) as error:
        raise UserError(f"the checkpoint is incomplete: {error} is needed to tell its variant") from error
    network = official.build(full)
    layout = official.layout(full)
    layout.check(state, network.state_dict())
    with torch.no_grad():
        network.load_state_dict(layout.to_ours(state))
    return network.eval(), full

"""Language models on the user's text: trained, measured, and made to go on with it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fovea.models.language import LanguageModel
from fovea.tasks.devices import device_of
from fovea.tasks.fit import fit
from fovea.tasks.language import predict as writing
from fovea.tasks.language import sources
from fovea.tasks.language.config import TextConfig
from fovea.tasks.language.generation import Sampling, generate
from fovea.tasks.language.learner import NextToken
from fovea.tasks.language.measure import foretold
from fovea.tasks.language.page import page
from fovea.tasks.language.sources import Source
from fovea.tasks.progress import bar
from fovea.tasks.run import RunDirectory

CHANGEABLE = ("optimisation.", "hardware.")
"""What may differ from the earlier run when one goes on."""
PROMPT, WRITTEN = 64, 128
"""Tokens of the sample on the page."""


def train(
    config: TextConfig,
    run: RunDirectory,
    data: Path,
    *,
    title: str,
    checkpoint: Path | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, float]:
    """Train on text, from a checkpoint (its network and its tokenizer) or from new weights; measure, and report."""
    sources.look(data)
    begun = writing.load(checkpoint) if checkpoint is not None else None
    if begun is not None:
        config = replace(config, network=begun.network.config)
    run.start(config, seed=config.seed, resume=resume, changeable=CHANGEABLE)
    if begun is not None:
        run.say(f"from {checkpoint}, with its network and its tokenizer")
    source = sources.open_text(data, config.data, run.path, begun.tokenizer if begun is not None else None)
    torch.manual_seed(config.seed)
    config = replace(config, network=replace(config.network, vocabulary=source.tokenizer.vocabulary))
    network = LanguageModel(config.network) if begun is None else begun.network
    network = taught(network, config, run, source, resume=resume, quiet=quiet)
    with bar("measuring", len(source.held_out), quiet=quiet) as advance:
        measured = foretold(network, source.held_out, source.tokenizer, progress=lambda rows: advance(steps=rows))
    lead = (
        f"Trained for {config.optimisation.steps} steps of {config.optimisation.batch} sequences of "
        f"{config.data.length} tokens of {source.name}; measured on the last {100 * config.data.held_out:.3g} % of it."
    )
    page(run, config, network, measured, title=title, lead=lead, sample=sample(network, source)).write(run.report)
    run.finish(measured)
    run.say(f"{measured['bits_per_byte']:.3f} bits a byte; the page to look at: {run.report}")
    return measured


def taught(
    network: LanguageModel, config: TextConfig, run: RunDirectory, source: Source, *, resume: bool, quiet: bool
) -> LanguageModel:
    """The network after its training."""

    def measure(averaged: nn.Module) -> dict[str, float]:
        return foretold(averaged, source.held_out, source.tokenizer, most=config.data.measured)

    extra = {"tokenizer": source.tokenizer.name, "length": config.data.length}
    learner = NextToken(network, source, config, measure, extra)
    trained = fit(
        learner, config.optimisation, run, seed=config.seed, hardware=config.hardware, resume=resume, quiet=quiet
    )
    assert isinstance(trained, LanguageModel)
    return trained


def evaluate(
    config: TextConfig, checkpoint: Path | None, data: Path, *, run: RunDirectory | None = None, quiet: bool = False
) -> dict[str, float]:
    """Bits a byte and perplexity of a checkpoint on all of a text, in sequences of the configuration's length."""
    writer = writing.load(checkpoint)
    sources.look(data)
    network = writer.network.to(device_of(config.hardware))
    with tempfile.TemporaryDirectory() as folder:
        whole = sources.all_text(data, config.data, Path(folder), writer.tokenizer)
        with bar("measuring", len(whole), quiet=quiet) as advance:
            measured = foretold(network, whole, writer.tokenizer, progress=lambda rows: advance(steps=rows))
    if run is not None:
        run.start(config, seed=config.seed)
        run.finish(measured)
    return measured


def predict(
    checkpoint: Path | None, inputs: Sequence[Path], output: Path, *, quiet: bool = False, **options: Any
) -> list[Path]:
    """Go on with the text of files; ``options`` are those of :class:`fovea.tasks.language.predict.Writing`."""
    return writing.predict(writing.load(checkpoint), inputs, output, options, quiet=quiet)


def sample(network: LanguageModel, source: Source) -> tuple[str, str]:
    """A prompt from the text held out, and what the network makes of it."""
    prompt = source.held_out.sequence(0)["tokens"][:PROMPT].tolist()
    kept = [token for token in prompt if token != source.tokenizer.end] or prompt[:1]
    written = generate(network, [kept], WRITTEN, sampling=Sampling(0.8), stop=[[source.tokenizer.end]])[0]
    return source.tokenizer.decode(kept), source.tokenizer.decode(written)

"""The page of a language model that was trained: how well it foretells text, how it learned, what it keeps."""

from __future__ import annotations

from collections.abc import Mapping

from fovea.models.language import LanguageModel
from fovea.tasks.language.config import TextConfig
from fovea.tasks.report import Report
from fovea.tasks.run import RunDirectory

LENGTHS = (1024, 4096, 16384, 65536)
"""At which the size of the state is told."""


def page(
    run: RunDirectory,
    config: TextConfig,
    network: LanguageModel,
    measured: Mapping[str, float],
    *,
    title: str,
    lead: str,
    sample: tuple[str, str],
) -> Report:
    """The report, not yet written.

    Args:
        sample: a prompt from the text held out, and what the model makes of it.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    report = Report(title, lead).numbers(
        {
            "bits a byte, of text held out": f"{measured['bits_per_byte']:.3f}",
            "perplexity of a token": f"{measured['perplexity']:.2f}",
            "parameters": f"{parameters:,}",
        },
        accent="bits a byte, of text held out",
    )
    report.heading("What it writes")
    report.paragraph(f"Given: …{sample[0]}").paragraph(f"It goes on: {sample[1]}")
    report.heading("How it learned")
    lines = run.measurements()
    for key, up in (("bits_per_byte", "bits a byte, of text held out"), ("nats", "training loss, nats a token")):
        report.curves({key: [(line["step"], line[key]) for line in lines if key in line]}, up=up)
    report.heading("What it keeps of what it has read")
    report.paragraph("Numbers in the states of all layers after so many tokens; a model that grows keeps every token.")
    report.table(
        ["layer", *(f"{length:,} tokens" for length in LENGTHS)],
        [
            *(
                [f"{place}: {layer.mixer}", *(f"{block.mixer.state_size(length):,}" for length in LENGTHS)]  # type: ignore[union-attr,operator]
                for place, (layer, block) in enumerate(zip(config.network.layers, network.blocks, strict=True))
            ),
            ["all", *(f"{network.state_size(length):,}" for length in LENGTHS)],
        ],
        strong_last=True,
    )
    return report.run(run, config)

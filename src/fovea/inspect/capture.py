"""What named modules of a network see and give, while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatchcase
from typing import Any, Literal

from torch import Tensor, nn

from fovea.errors import unknown


@contextmanager
def capture(
    network: nn.Module, *names: str, what: Literal["output", "input"] = "output", detach: bool = True
) -> Iterator[dict[str, list[Any]]]:
    """Within the block, collect what the named modules give (or are given), one entry a call.

    The network is left as it was, also when the block fails.

    >>> network = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> with capture(network, "0") as seen:
    ...     _ = network(network[0].weight.new_ones(1, 2))
    >>> seen["0"][0].shape
    torch.Size([1, 3])

    Args:
        network: any network.
        names: of its modules as in ``named_modules``, with ``*`` and ``?`` for many at once
            (``"groups.*.blocks.*.attention.qkv"``).
        what: the output, or the first positional input.
        detach: leave out the graph; otherwise gradients flow from what was captured.

    Yields:
        Name to list of what was seen. Names of modules that were not called stay with an empty list.

    Raises:
        UsageError: when a name fits no module.
    """
    modules = dict(network.named_modules())
    seen: dict[str, list[Any]] = {}
    for name in names:
        fitting = [known for known in modules if known and fnmatchcase(known, name)]
        if not fitting:
            raise unknown("module", name, filter(None, modules))
        seen.update({known: [] for known in fitting})
    with ExitStack() as hooks:
        for name, entries in seen.items():
            hooks.callback(modules[name].register_forward_hook(_collector(entries, what, detach)).remove)
        yield seen


def _collector(entries: list[Any], what: str, detach: bool) -> Any:
    def collect(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        value = output if what == "output" else inputs[0]
        entries.append(value.detach() if detach and isinstance(value, Tensor) else value)

    return collect

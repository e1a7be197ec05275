"""Checks the shapes that fovea's signatures promise, while tests run.

A function or method with jaxtyping annotations (``Float[Tensor, "batch *grid heads dim"]``) is wrapped when its module
is imported, so that a wrong shape fails at the call and names the argument. jaxtyping has an import hook of its own; it
wraps before other decorators do, which ``torch.library.custom_op`` cannot read, and ``torch.compile`` cannot trace its
wrapper. This one wraps finished modules and steps aside while a graph is captured.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any

from beartype import beartype
from jaxtyping import AbstractArray, jaxtyped


def promises_shapes(hint: Any) -> bool:
    """Whether a resolved annotation has a jaxtyping shape in it, at any depth."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        return True
    return any(promises_shapes(part) for part in typing.get_args(hint))


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its shapes checked at each call outside of graph capture."""
    import torch

    strict = jaxtyped(function, typechecker=beartype)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs) if torch.compiler.is_compiling() else strict(*args, **kwargs)

    return call


def wants_check(value: Any, module: ModuleType) -> bool:
    if not isinstance(value, FunctionType) or value.__module__ != module.__name__:
        return False
    try:
        hints = typing.get_type_hints(value)
    except (NameError, TypeError):  # a name that only the type checker imports
        return False
    return any(map(promises_shapes, hints.values()))


def check_module(module: ModuleType) -> None:
    """Wrap the module's functions and the methods of its classes."""
    for name, value in list(vars(module).items()):
        if wants_check(value, module):
            setattr(module, name, checked(value))
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            for method, function in list(vars(value).items()):
                if wants_check(function, module):
                    setattr(value, method, checked(function))


class ShapeChecks(importlib.abc.MetaPathFinder):
    """Finds modules of the given packages as usual and checks them once they are executed."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = tuple(packages)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if not any(name == package or name.startswith(f"{package}.") for package in self.packages):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or not isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            return spec
        execute = spec.loader.exec_module

        def execute_and_check(module: ModuleType) -> None:
            execute(module)
            check_module(module)

        spec.loader.exec_module = execute_and_check  # type: ignore[method-assign]
        return spec


def install(*packages: str) -> None:
    """Check every module of these packages that is imported from now on."""
    sys.meta_path.insert(0, ShapeChecks(packages))

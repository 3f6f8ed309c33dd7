"""Offers: the classes that a plugin registers, checked and attributed to its package."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import Distribution
from types import ModuleType
from typing import Any

import pluggy
from pydantic import BaseModel

import alignzoo
from alignzoo.core.errors import first_line, nearest
from alignzoo.interfaces import hookspecs
from alignzoo.interfaces.component import NAME, summary
from alignzoo.interfaces.requirements import ScoredComponent, contradiction
from alignzoo.interfaces.reward_function import judge_of, reward_functions
from alignzoo.registry.code import code_of_class
from alignzoo.registry.renamed import explain, former_name

RESERVED = ("name", "weight", "modifiers")
"""Keys of a recipe's objective node that are not fields of the objective."""


class PluginError(Exception):
    """The reason why a plugin is not loaded."""


@dataclass(frozen=True, slots=True)
class Provider:
    """The package of a class, its version, and a digest of the version and of all of its code."""

    package: str
    version: str
    code: str


@dataclass(frozen=True, slots=True)
class Package:
    """The origin of classes: an installed distribution, alignzoo itself, or a file."""

    name: str
    version: str = ""
    distribution: Distribution | None = None
    _codes: dict[str, str] = field(default_factory=dict, compare=False)

    def code_digest(self, cls: type) -> str:
        """Return the digest for `Provider.code`, computed once per module."""
        version = "" if self is ALIGNZOO else self.version
        if cls.__module__ not in self._codes:
            self._codes[cls.__module__] = code_of_class(cls, self.distribution, version)
        return self._codes[cls.__module__]


ALIGNZOO = Package("alignzoo", alignzoo.__version__)


@dataclass(frozen=True, slots=True)
class Offer:
    """A class with its kind, its name and its package."""

    kind: str
    name: str
    cls: type
    origin: Provider


@contextmanager
def plugin_errors(doing: str) -> Iterator[None]:
    """Turn any exception of a plugin into a PluginError, `sys.exit` included."""
    try:
        yield
    except (KeyboardInterrupt, PluginError):
        raise
    except BaseException as error:
        try:
            message = explain(error) or first_line(error)
        except Exception:  # an exception of the plugin whose __str__ fails
            message = ""
        raise PluginError(f"{type(error).__name__} {doing}: {message}".removesuffix(": ")) from error


def offers_of(plugin: Any, package: Package) -> list[Offer]:
    """Return all classes that one plugin registers.

    Raises:
        PluginError: the plugin fails, or a hook or a class is wrong.
    """
    with plugin_errors("when its hooks were inspected"):
        _check_hooks(plugin)
        manager = pluggy.PluginManager(hookspecs.PROJECT)  # one per plugin, so that an error belongs to it
        manager.add_hookspecs(hookspecs)
        manager.register(plugin)
        manager.check_pending()
    offers = []
    for kind, (hook, base) in hookspecs.KINDS.items():
        with plugin_errors(f"in {hook}"):
            for classes in getattr(manager.hook, hook)():
                if not isinstance(classes, list | tuple):
                    raise PluginError(f"{hook} returned {type(classes).__name__}; expected a list of classes")
                offers += [checked_offer(kind, hook, base, cls, package) for cls in classes]
    return offers


def offers_of_file(module: ModuleType, package: Package) -> list[Offer]:
    """Return all classes that a plugin file registers, and its reward functions as judges.

    Raises:
        PluginError: the file fails, or a hook, a class or a function is wrong.
    """
    with plugin_errors("when its functions were inspected"):
        functions = list(reward_functions(module))
    found = offers_of(module, package) if not functions or _marked(module) else []
    hook, base = hookspecs.KINDS["judge"]
    for name, function in functions:
        with plugin_errors(f"of the reward {name}"):
            cls = judge_of(name, function, module.__name__, package.name)
            found.append(checked_offer("judge", hook, base, cls, package))
    return found


def _marked(plugin: Any) -> list[str]:
    """Return the names of a plugin's hooks."""
    return [name for name in dir(plugin) if getattr(getattr(plugin, name, None), f"{hookspecs.PROJECT}_impl", None)]


def _check_hooks(plugin: Any) -> None:
    """Check the names and arguments of a plugin's hooks.

    pluggy ignores a misspelled name and fails on an extra argument.
    """
    hooks = [hook for hook, _ in hookspecs.KINDS.values()]
    marked = _marked(plugin)
    if not marked:
        raise PluginError(
            f"it registers nothing; expected a function marked @alignzoo.hookimpl, one of {', '.join(hooks)}, or, in a "
            "file, a reward function that takes `completions`"
        )
    for name in marked:
        if name not in hooks:
            close = nearest(name, hooks)
            hint = f"did you mean '{close}'?" if close else f"known: {', '.join(hooks)}"
            raise PluginError(f"hook {name} is unknown; {hint}")
        arguments = [arg for arg in inspect.signature(getattr(plugin, name)).parameters if arg != "self"]
        if arguments:
            raise PluginError(
                f"hook {name} takes no argument '{arguments[0]}'; hooks take none and return a list of classes"
            )


def checked_offer(kind: str, hook: str, base: str, cls: Any, package: Package) -> Offer:
    """Check a class and return it as an offer.

    The checks are of its base, name, docstring, fields and declarations.
    """
    module, _, attribute = base.partition(":")
    parent = getattr(import_module(module), attribute)
    if not (isinstance(cls, type) and issubclass(cls, parent)):
        raise PluginError(f"{hook} returned {cls!r}, which is not a subclass of {attribute}")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise PluginError(f"{cls.__name__}.name is {name!r}; expected lower case letters, digits and underscores")
    if not summary(cls):
        raise PluginError(f"{cls.__name__} has no docstring; write one, its first line is listed as the summary")
    if problem := former_name(cls, parent):
        raise PluginError(problem)
    for key in getattr(cls, "model_fields", {}):
        if key in RESERVED:
            raise PluginError(f"{cls.__name__} has a field '{key}', which is a reserved key of recipes; rename it")
        if hasattr(parent, key) and not hasattr(BaseModel, key):
            raise PluginError(
                f"{cls.__name__} has a field '{key}', which is no hyper-parameter but {attribute}.{key}; "
                "remove its annotation to declare it, or rename the field"
            )
    if issubclass(cls, ScoredComponent):
        reason = contradiction(cls)
        if reason:
            raise PluginError(f"{cls.__name__} declares what can't be provided: {reason}")
    return Offer(kind, name, cls, Provider(package.name, package.version, package.code_digest(cls)))

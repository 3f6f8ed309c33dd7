"""Plugins found, checked and attributed: from a name in a recipe to a class.

Each plugin is loaded by itself, so an error belongs to one plugin; failures are kept as data and shown where they
matter. A built-in name is found without importing anything third-party, so that installing a plugin never changes a run
that does not name it.
"""

from __future__ import annotations

import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import blake2b
from importlib import import_module
from importlib.metadata import Distribution, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import alignzoo
from alignzoo import hookspecs
from alignzoo.elsewhere import PACKAGE_OF
from alignzoo.errors import Problem, UserError, nearest

GROUP = "alignzoo"
BUILT_IN = ("alignzoo.objectives", "alignzoo.data.sources")
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True, slots=True)
class Origin:
    """Who offers a class: its package, that package's version, and a digest of the file that defines it."""

    package: str
    version: str
    file_hash: str


@dataclass(frozen=True)
class PluginInfo:
    """One entry point of an installed package: what it offers, or why it was not loaded."""

    package: str
    version: str
    entry_point: str
    offers: dict[str, list[str]] = field(default_factory=dict)
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Offer:
    """A class under its name."""

    kind: str
    name: str
    cls: type
    origin: Origin


class Refused(Exception):
    """Why a plugin is not loaded, in our words."""


class Registry:
    """Everything that can be named: built-ins, installed plugins, and the files that a recipe lists."""

    def __init__(self, files: Sequence[Offer] = ()) -> None:
        self._files = list(files)

    @cached_property
    def _built_in(self) -> list[Offer]:
        offers: list[Offer] = []
        for name in BUILT_IN:
            offers += _offers(import_module(name), "alignzoo", alignzoo.__version__)
        return offers

    @cached_property
    def _installed(self) -> tuple[list[Offer], list[PluginInfo]]:
        return _load_installed()

    def find(self, kind: str, name: str) -> type:
        """The class of a kind (`objective`, `data source`) that a recipe calls `name` or `package/name`.

        Raises UserError: with the nearest spelling, the package to install, the qualified spellings when several
        plugins offer it, and what could not be loaded.
        """
        mine = [offer for offer in (*self._built_in, *self._files) if offer.kind == kind]
        for offer in mine:
            if name in (offer.name, f"{offer.origin.package}/{offer.name}"):
                return offer.cls
        others = [offer for offer in self._installed[0] if offer.kind == kind]
        found = [offer for offer in others if name in (offer.name, f"{offer.origin.package}/{offer.name}")]
        if len(found) == 1:
            return found[0].cls
        if found:
            spellings = " or ".join(f"{offer.origin.package}/{offer.name}" for offer in found)
            raise UserError(f"{kind} '{name}' is offered by {len(found)} plugins", expected=spellings)
        raise UserError([self._unknown(kind, name, [offer.name for offer in (*mine, *others)])])

    def _unknown(self, kind: str, name: str, known: list[str]) -> Problem:
        package = PACKAGE_OF.get(kind, {}).get(name)
        close = "" if package else nearest(name, known)
        expected = "" if package or close else f"one of {', '.join(sorted(set(known)))}"
        failed = [f"{info.package} was not loaded: {info.problem}" for info in self._installed[1] if info.problem]
        hints = [f"it is in another package: pip install {package}"] if package else []
        return Problem(
            f"no {kind} is called '{name}'", expected=expected, nearest=close, hint="\n    ".join(hints + failed)
        )

    def known(self, kind: str) -> dict[str, type]:
        """Every usable name; `package/name` for a plugin's name that a built-in or another plugin has too."""
        offers = [offer for offer in (*self._built_in, *self._files, *self._installed[0]) if offer.kind == kind]
        names = [offer.name for offer in offers]
        result: dict[str, type] = {}
        for offer in offers:
            plain = names.count(offer.name) == 1 or offer.origin.package == "alignzoo"
            result[offer.name if plain else f"{offer.origin.package}/{offer.name}"] = offer.cls
        return result

    def plugins(self) -> list[PluginInfo]:
        """Every installed plugin, loaded or not, in the order of package names."""
        return self._installed[1]

    def origin(self, cls: type) -> Origin:
        """Who offers a class that `find` or `known` returned. Installed plugins are looked at only if need be."""
        for offer in (*self._built_in, *self._files):
            if offer.cls is cls:
                return offer.origin
        return next(offer.origin for offer in self._installed[0] if offer.cls is cls)

    def with_files(self, paths: Sequence[Path]) -> Registry:
        """A registry that also knows the unpackaged plugins (.py files) that a recipe lists.

        Raises UserError, with file and line, for a file that can't be loaded or that takes a built-in's name.
        """
        offers: list[Offer] = []
        taken = {(offer.kind, offer.name) for offer in self._built_in}
        for path in paths:
            for offer in _load_file(path):
                if (offer.kind, offer.name) in taken:
                    raise UserError(
                        f"{offer.kind} '{offer.name}' exists already", where=str(path), expected="another name"
                    )
                taken.add((offer.kind, offer.name))
                offers.append(offer)
        extended = Registry(offers)
        extended.__dict__.update({key: value for key, value in self.__dict__.items() if key != "_files"})
        return extended


@lru_cache(maxsize=1)
def registry() -> Registry:
    """The registry of this process; `ALIGNZOO_PLUGINS` (empty: none, or a comma list of packages) is read once."""
    return Registry()


def get_objective(name: str, **fields: Any) -> Any:
    """An objective by its name: `get_objective("dpo", beta=0.1)`. Raises UserError as a recipe would."""
    from pydantic import ValidationError

    cls = registry().find("objective", name)
    try:
        return cls(**fields)
    except ValidationError as error:
        known = getattr(cls, "model_fields", {})
        problems = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            unknown = item["type"] == "extra_forbidden"
            what = f"{name} has no field '{key}'" if unknown else f"{name}.{key}: {item['msg']} (got {item['input']!r})"
            problems.append(Problem(what, nearest=nearest(key, known) if unknown else ""))
        raise UserError(problems) from None


def _load_installed() -> tuple[list[Offer], list[PluginInfo]]:
    wanted = os.environ.get("ALIGNZOO_PLUGINS")
    only = None if wanted is None else {canonicalize_name(part.strip()) for part in wanted.split(",") if part.strip()}
    offers: list[Offer] = []
    infos: list[PluginInfo] = []
    for name, distribution in _plugin_distributions():
        if only is not None and name not in only:
            continue
        for entry in sorted(distribution.entry_points, key=lambda entry: entry.name):
            if entry.group != GROUP:
                continue
            try:
                _check_version(distribution)
                these = _offers(_import(entry.load), name, distribution.version)
            except Refused as reason:
                infos.append(PluginInfo(name, distribution.version, entry.name, problem=str(reason)))
                continue
            offers += these
            kinds = {kind: sorted(offer.name for offer in these if offer.kind == kind) for kind in hookspecs.KINDS}
            found = {kind: names for kind, names in kinds.items() if names}
            infos.append(PluginInfo(name, distribution.version, entry.name, found))
    return offers, infos


def _plugin_distributions() -> list[tuple[str, Distribution]]:
    """Sorted by name, so that nothing depends on the order of sys.path; the first of two copies is the one imported."""
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        if any(entry.group == GROUP for entry in distribution.entry_points):
            found.setdefault(str(canonicalize_name(distribution.metadata["Name"])), distribution)
    return sorted(found.items())


def _check_version(distribution: Distribution) -> None:
    """A plugin's own requirement is its API version; read from metadata, before a line of it runs."""
    for line in distribution.requires or []:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) != "alignzoo" or (
            requirement.marker and not requirement.marker.evaluate()
        ):
            continue
        if not requirement.specifier.contains(alignzoo.__version__, prereleases=True):
            raise Refused(f"needs alignzoo{requirement.specifier}; this is alignzoo {alignzoo.__version__}")


def _import(load: Any) -> Any:
    try:
        return load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a plugin may fail in any way, sys.exit included, and must break nothing else
        raise Refused(f"{type(error).__name__} on import: {error}") from error


def _offers(plugin: Any, package: str, version: str) -> list[Offer]:
    """Ask one plugin, through a manager of its own, for everything it registers."""
    _check_hooks(plugin)
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    offers = []
    for kind, (hook, base) in hookspecs.KINDS.items():
        for classes in _call(hook, getattr(manager.hook, hook)):
            if not isinstance(classes, list | tuple):
                raise Refused(f"{hook} returned {type(classes).__name__}; expected a list of classes")
            offers += [_checked(kind, hook, base, cls, package, version) for cls in classes]
    return offers


def _call(hook: str, caller: Any) -> list[Any]:
    try:
        return caller()
    except Exception as error:
        raise Refused(f"{hook} raised {type(error).__name__}: {error}") from error


def _check_hooks(plugin: Any) -> None:
    """pluggy ignores a misspelt hook and trips over an extra argument; both are refused here, in words."""
    hooks = [hook for hook, _ in hookspecs.KINDS.values()]
    marked = [name for name in dir(plugin) if getattr(getattr(plugin, name, None), f"{hookspecs.PROJECT}_impl", None)]
    if not marked:
        raise Refused(f"it registers nothing; expected a function marked @alignzoo.hookimpl, one of {', '.join(hooks)}")
    for name in marked:
        if name not in hooks:
            close = nearest(name, hooks)
            raise Refused(
                f"no hook is called {name}; " + (f"did you mean {close}?" if close else f"known: {', '.join(hooks)}")
            )
        arguments = [arg for arg in inspect.signature(getattr(plugin, name)).parameters if arg != "self"]
        if arguments:
            raise Refused(f"{name} takes no argument '{arguments[0]}'; hooks take none and return a list of classes")


def _checked(kind: str, hook: str, base: str, cls: Any, package: str, version: str) -> Offer:
    module, _, attribute = base.partition(":")
    if not (isinstance(cls, type) and issubclass(cls, getattr(import_module(module), attribute))):
        raise Refused(f"{hook} returned {cls!r}, which is not a subclass of {attribute}")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Refused(f"{cls.__name__}.name is {name!r}; expected lower case letters, digits and underscores")
    if not (cls.__dict__.get("__doc__") or "").strip():
        raise Refused(f"{cls.__name__} has no docstring; its first line is what `alignzoo objectives` shows")
    return Offer(kind, name, cls, Origin(package, version, _hash_of(sys.modules.get(cls.__module__))))


def _hash_of(module: ModuleType | None) -> str:
    path = getattr(module, "__file__", None)
    return blake2b(Path(path).read_bytes(), digest_size=16).hexdigest() if path and Path(path).is_file() else ""


def _load_file(path: Path) -> Iterable[Offer]:
    if not path.is_file():
        close = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        raise UserError("no such plugin file", where=str(path), nearest=close)
    digest = blake2b(path.read_bytes(), digest_size=16).hexdigest()
    name = f"alignzoo_file_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise UserError("a plugin file is Python source", where=str(path), expected="a name that ends in .py")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        _import(lambda: spec.loader.exec_module(module))
        return _offers(module, path.name, "")
    except Refused as reason:
        del sys.modules[name]
        raise UserError(str(reason), where=f"{path}{_line_in(path, reason.__cause__)}") from None


def _line_in(path: Path, error: BaseException | None) -> str:
    if isinstance(error, SyntaxError) and error.lineno:
        return f":{error.lineno}"
    lines = []
    trace = error.__traceback__ if error else None
    while trace:
        if trace.tb_frame.f_code.co_filename == str(path):
            lines.append(trace.tb_lineno)
        trace = trace.tb_next
    return f":{lines[-1]}" if lines else ""

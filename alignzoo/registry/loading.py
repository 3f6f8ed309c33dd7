"""Plugins loaded one at a time: each is checked, imported and asked by itself, so that an error belongs to one plugin.

pluggy's own loader lets one broken import kill every command, loses one of two packages with the same entry-point name
and ignores a misspelled hook; here each of these is a `Refused` with our words, kept as data.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

import alignzoo
from alignzoo.core.digests import digest_bytes
from alignzoo.core.errors import UserError, first_line, nearest
from alignzoo.interfaces import hookspecs
from alignzoo.interfaces.objective import Requirements, contradiction
from alignzoo.registry.code import code_of_class

GROUP = "alignzoo"
NAME = re.compile(r"[a-z][a-z0-9_]*")
OFF = "left out by ALIGNZOO_PLUGINS"
"""The `problem` of a plugin that the user switched off."""
NOBODY = "none"
"""Of `ALIGNZOO_PLUGINS`: no installed plugin and no file either. `alignzoo --no-plugins` sets it."""


@dataclass(frozen=True, slots=True)
class Provider:
    """Who offers a class: its package, that package's version, and a digest of the version and of all its code."""

    package: str
    version: str
    code: str


@dataclass(frozen=True, slots=True)
class Package:
    """Where classes are offered: an installed distribution, alignzoo itself, or a file."""

    name: str
    version: str = ""
    distribution: Distribution | None = None
    _codes: dict[str, str] = field(default_factory=dict, compare=False)

    def remote_code_digests(self, cls: type) -> str:
        """The digest of `Provider.code`, read once for each module."""
        version = "" if self is ALIGNZOO else self.version
        if cls.__module__ not in self._codes:
            self._codes[cls.__module__] = code_of_class(cls, self.distribution, version)
        return self._codes[cls.__module__]


ALIGNZOO = Package("alignzoo", alignzoo.__version__)


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
    origin: Provider


class Refused(Exception):
    """Why a plugin is not loaded, in our words."""


@contextmanager
def _guarded(doing: str) -> Iterator[None]:
    """A plugin may fail in any way, `sys.exit` included, and must break nothing else."""
    try:
        yield
    except (KeyboardInterrupt, Refused):
        raise
    except BaseException as error:
        try:
            what = first_line(error)
        except Exception:  # its own exception, which has no words
            what = ""
        raise Refused(f"{type(error).__name__} {doing}: {what}".removesuffix(": ")) from error


def load_module(name: str) -> list[Offer]:
    """What one of alignzoo's own modules registers. Raises Refused as a plugin would."""
    return _offers(import_module(name), ALIGNZOO)


def load_installed() -> tuple[list[Offer], list[PluginInfo]]:
    """Every installed plugin that `ALIGNZOO_PLUGINS` allows; what is not loaded says why in its PluginInfo."""
    wanted = os.environ.get("ALIGNZOO_PLUGINS")
    only = None if wanted is None else {canonicalize_name(part.strip()) for part in wanted.split(",") if part.strip()}
    offers: list[Offer] = []
    infos: list[PluginInfo] = []
    for name, distribution in _plugin_distributions():
        version = _metadata(distribution, "Version")
        if only is not None and name not in only:
            infos.append(PluginInfo(name, version, "", problem=OFF))
            continue
        mine: dict[tuple[str, str], Offer] = {}
        try:
            entries = _entries(distribution)
        except Refused as reason:
            infos.append(PluginInfo(name, version, "", problem=str(reason)))
            continue
        for entry in entries:
            try:
                _check_version(distribution)
                these = _load_entry(entry, Package(name, version, distribution), mine)
            except Refused as reason:
                infos.append(PluginInfo(name, version, entry.name, problem=str(reason)))
                continue
            mine |= {(offer.kind, offer.name): offer for offer in these}
            kinds = {kind: sorted(offer.name for offer in these if offer.kind == kind) for kind in hookspecs.KINDS}
            infos.append(PluginInfo(name, version, entry.name, {kind: names for kind, names in kinds.items() if names}))
        offers += mine.values()
    return offers, infos


def load_file(path: Path) -> list[Offer]:
    """What an unpackaged plugin registers. Raises UserError with the file, and the line where it failed."""
    if no_plugins():
        raise UserError("plugins are switched off (--no-plugins), and the recipe names this one", where=str(path))
    if not path.is_file():
        close = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        raise UserError("no such plugin file", where=str(path), nearest=close)
    if path.suffix != ".py":
        raise UserError("a plugin file is Python source", where=str(path), expected="a name that ends in .py")
    source = path.read_bytes()
    digest = digest_bytes(source)
    name = f"alignzoo_file_{digest}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        with _guarded("on import"):  # what was hashed is run, and no __pycache__ that lies beside it
            exec(compile(source, str(path), "exec"), module.__dict__)
        return _offers(module, Package(path.name))
    except Refused as reason:
        del sys.modules[name]
        raise UserError(str(reason), where=f"{path}{_line_in(path, reason.__cause__)}") from None


def no_plugins() -> bool:
    """Whether everything third-party is switched off, the files that a recipe names too: `ALIGNZOO_PLUGINS=none`."""
    return os.environ.get("ALIGNZOO_PLUGINS", "").strip() == NOBODY


def _plugin_distributions() -> list[tuple[str, Distribution]]:
    """Sorted by name, so that nothing depends on the order of sys.path; the first of two copies is the one imported.

    The file of entry points is searched before it is parsed: a damaged one of another package is not our business.
    """
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        if f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or ""):
            found.setdefault(canonicalize_name(_metadata(distribution, "Name") or "(no name)"), distribution)
    return sorted(found.items())


def _metadata(distribution: Distribution, key: str) -> str:
    """One field, or "" where the metadata lacks it (Python's own answer to that depends on its version)."""
    try:
        return distribution.metadata[key] or ""
    except (KeyError, TypeError):
        return ""


def _entries(distribution: Distribution) -> list[EntryPoint]:
    with _guarded("in its entry_points.txt"):
        ours = [entry for entry in distribution.entry_points if entry.group == GROUP]
    return sorted(ours, key=lambda entry: entry.name)


def _check_version(distribution: Distribution) -> None:
    """A plugin's own requirement is its API version; read from metadata, before a line of it runs."""
    for line in distribution.requires or []:
        package = re.match(r"[\w.-]+", line)
        if not package or canonicalize_name(package[0]) != "alignzoo":
            continue
        with _guarded("in its metadata"):
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate()
        if applies and not requirement.specifier.contains(alignzoo.__version__, prereleases=True):
            raise Refused(f"needs alignzoo{requirement.specifier}; this is alignzoo {alignzoo.__version__}")


def _load_entry(entry: EntryPoint, package: Package, before: dict[tuple[str, str], Offer]) -> list[Offer]:
    """What an entry point registers; two classes of one package under one name could never be told apart."""
    with _guarded("on import"):
        plugin = entry.load()
    offers = _offers(plugin, package)
    for i, offer in enumerate(offers):
        same = [
            other for other in (*before.values(), *offers[:i]) if (other.kind, other.name) == (offer.kind, offer.name)
        ]
        if any(other.cls is not offer.cls for other in same):
            raise Refused(f"{offer.kind} '{offer.name}' is registered twice, by {same[0].cls} and {offer.cls}")
    return offers


RESERVED = ("name", "weight", "modifiers")
"""Keys of a recipe's objective node that are not the objective's own."""


def _offers(plugin: Any, package: Package) -> list[Offer]:
    """Ask one plugin, through a manager of its own, for everything it registers."""
    with _guarded("when it was looked at"):
        _check_hooks(plugin)
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        manager.register(plugin)
        manager.check_pending()
    offers = []
    for kind, (hook, base) in hookspecs.KINDS.items():
        with _guarded(f"in {hook}"):
            for classes in getattr(manager.hook, hook)():
                if not isinstance(classes, list | tuple):
                    raise Refused(f"{hook} returned {type(classes).__name__}; expected a list of classes")
                offers += [_checked(kind, hook, base, cls, package) for cls in classes]
    return offers


def _check_hooks(plugin: Any) -> None:
    """pluggy ignores a misspelled hook and trips over an extra argument; both are refused here, in words."""
    hooks = [hook for hook, _ in hookspecs.KINDS.values()]
    marked = [name for name in dir(plugin) if getattr(getattr(plugin, name, None), f"{hookspecs.PROJECT}_impl", None)]
    if not marked:
        raise Refused(f"it registers nothing; expected a function marked @alignzoo.hookimpl, one of {', '.join(hooks)}")
    for name in marked:
        if name not in hooks:
            close = nearest(name, hooks)
            raise Refused(
                f"hook {name} is unknown; " + (f"did you mean '{close}'?" if close else f"known: {', '.join(hooks)}")
            )
        arguments = [arg for arg in inspect.signature(getattr(plugin, name)).parameters if arg != "self"]
        if arguments:
            raise Refused(
                f"hook {name} takes no argument '{arguments[0]}'; hooks take none and return a list of classes"
            )


def _checked(kind: str, hook: str, base: str, cls: Any, package: Package) -> Offer:
    module, _, attribute = base.partition(":")
    parent = getattr(import_module(module), attribute)
    if not (isinstance(cls, type) and issubclass(cls, parent)):
        raise Refused(f"{hook} returned {cls!r}, which is not a subclass of {attribute}")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise Refused(f"{cls.__name__}.name is {name!r}; expected lower case letters, digits and underscores")
    if not (cls.__dict__.get("__doc__") or "").strip():
        raise Refused(f"{cls.__name__} has no docstring; its first line is what `alignzoo objectives` shows")
    for key in getattr(cls, "model_fields", {}):
        if key in RESERVED:
            raise Refused(f"{cls.__name__} has a field '{key}', which means something else in a recipe")
        if hasattr(parent, key) and not hasattr(BaseModel, key):
            raise Refused(f"{cls.__name__} has a field '{key}', which is no hyper-parameter but {attribute}.{key}")
    if issubclass(cls, Requirements):
        why = contradiction(cls)
        if why:
            raise Refused(f"{cls.__name__} declares what can't be provided: {why}")
    return Offer(kind, name, cls, Provider(package.name, package.version, package.remote_code_digests(cls)))


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

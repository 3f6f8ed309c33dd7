"""Load plugins one by one: an error of one affects no other plugin and no command.

pluggy's own loader stops at the first broken import, loses one of two packages with the same entry-point name, and
ignores a misspelled hook. Here each of these is a `PluginError`, which is kept in the `PluginInfo` of its package.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import alignzoo
from alignzoo.core.console import warn_once
from alignzoo.core.digests import digest_bytes
from alignzoo.core.door import read_bytes
from alignzoo.core.errors import UserError, nearest
from alignzoo.interfaces import hookspecs
from alignzoo.registry.code import code_of_file
from alignzoo.registry.offers import ALIGNZOO, Offer, Package, PluginError, offers_of, offers_of_file, plugin_errors

GROUP = "alignzoo"
OFF = "left out by ALIGNZOO_PLUGINS"
"""The `problem` of a plugin that the user switched off."""
IMPORT_SECONDS = 30.0
"""Time that the import of a plugin may take, and its hooks."""
SOURCE_BYTES = 10_000_000
"""Limit of a plugin file."""
NO_PLUGINS = "none"
"""Value of `ALIGNZOO_PLUGINS` that also switches off files that a recipe names; `--no-plugins` sets it."""


@dataclass(frozen=True)
class PluginInfo:
    """Entry point of an installed package: the names that it offers, or its problem.

    The problem is the reason why it is not loaded.
    """

    package: str
    version: str
    entry_point: str
    offers: dict[str, list[str]] = field(default_factory=dict)
    problem: str = ""


def load_module(name: str) -> list[Offer]:
    """Return the classes that one of alignzoo's own modules registers."""
    return offers_of(import_module(name), ALIGNZOO)


def load_installed() -> tuple[list[Offer], list[PluginInfo]]:
    """Return the classes of all installed plugins that `ALIGNZOO_PLUGINS` allows.

    The second list has a PluginInfo for each plugin.
    """
    setting = os.environ.get("ALIGNZOO_PLUGINS")
    only = None if setting is None else {canonicalize_name(part.strip()) for part in setting.split(",") if part.strip()}
    offers: list[Offer] = []
    infos: list[PluginInfo] = []
    for name, distribution in _plugin_distributions():
        version = _metadata(distribution, "Version")
        if only is not None and name not in only:
            infos.append(PluginInfo(name, version, "", problem=OFF))
            continue
        own: dict[tuple[str, str], Offer] = {}
        try:
            entries = _entries(distribution)
        except PluginError as reason:
            infos.append(PluginInfo(name, version, "", problem=str(reason)))
            continue
        for entry in entries:
            try:
                _check_version(distribution)
                new = _load_entry(entry, Package(name, version, distribution), own)
            except PluginError as reason:
                infos.append(PluginInfo(name, version, entry.name, problem=str(reason)))
                continue
            own |= {(offer.kind, offer.name): offer for offer in new}
            kinds = {kind: sorted(offer.name for offer in new if offer.kind == kind) for kind in hookspecs.KINDS}
            infos.append(PluginInfo(name, version, entry.name, {kind: names for kind, names in kinds.items() if names}))
        offers += own.values()
    return offers, infos


def load_file(path: Path) -> list[Offer]:
    """Return the classes that a plugin file registers.

    The file and its digest are printed before its code runs. The bytes that are digested are the bytes that run,
    whatever is in the file by then.

    Raises:
        UserError: the file is missing or fails, or imports for too long; the error has the file and the line.
    """
    if no_plugins():
        raise UserError("plugins are switched off (--no-plugins), and the recipe names this one", where=str(path))
    if not path.is_file():
        close = nearest(path.name, [other.name for other in path.parent.glob("*.py")])
        raise UserError("no such plugin file", where=str(path), nearest=close)
    if path.suffix != ".py":
        raise UserError("a plugin file is Python source", where=str(path), expected="a name that ends in .py")
    source = read_bytes(path, SOURCE_BYTES)
    digest, code = digest_bytes(source), code_of_file(path, source)
    warn_once(f"code of {path} is run (blake2b {digest})")
    name = f"alignzoo_file_{digest}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        with plugin_errors("on import"), time_limit():  # the hashed source runs, not a __pycache__ beside it
            exec(compile(source, str(path), "exec"), module.__dict__)
        if code_of_file(path, source) != code:
            raise PluginError("a module beside it changed while it was imported; start again")
        with time_limit():
            return offers_of_file(module, Package(path.name, _codes={name: code}))
    except PluginError as reason:
        del sys.modules[name]
        raise UserError(str(reason), where=f"{path}{_line_in(path, reason.__cause__)}") from None


@contextmanager
def time_limit(seconds: float | None = None) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`, by default `IMPORT_SECONDS`.

    It needs the main thread, which alone receives signals; elsewhere there is no limit. Code in C that never returns to
    Python is not interrupted.
    """
    limit = IMPORT_SECONDS if seconds is None else seconds

    def stop(*_: object) -> None:
        raise TimeoutError(f"it took more than {limit:g} s")

    if threading.current_thread() is not threading.main_thread() or signal.getitimer(signal.ITIMER_REAL)[0]:
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, limit, 1)  # again every second, where the code catches the error
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def no_plugins() -> bool:
    """Return True if `ALIGNZOO_PLUGINS=none` switches off all plugins.

    These include files that a recipe names.
    """
    return os.environ.get("ALIGNZOO_PLUGINS", "").strip() == NO_PLUGINS


def _plugin_distributions() -> list[tuple[str, Distribution]]:
    """Return plugins sorted by name; of two copies, the one that would be imported.

    The text of the entry points is searched before it is parsed, because those of other packages may be damaged.
    """
    found: dict[str, Distribution] = {}
    for distribution in distributions():
        if f"[{GROUP}]" in (distribution.read_text("entry_points.txt") or ""):
            found.setdefault(canonicalize_name(_metadata(distribution, "Name") or "(no name)"), distribution)
    return sorted(found.items())


def _metadata(distribution: Distribution, key: str) -> str:
    """Return a metadata field, or "" if it is missing.

    A missing field is None or an error depending on Python's version.
    """
    try:
        return distribution.metadata[key] or ""
    except (KeyError, TypeError):
        return ""


def _entries(distribution: Distribution) -> list[EntryPoint]:
    with plugin_errors("in its entry_points.txt"):
        ours = [entry for entry in distribution.entry_points if entry.group == GROUP]
    return sorted(ours, key=lambda entry: entry.name)


def _check_version(distribution: Distribution) -> None:
    """Check a plugin's requirement on alignzoo in its metadata, before its code runs."""
    for line in distribution.requires or []:
        package = re.match(r"[\w.-]+", line)
        if not package or canonicalize_name(package[0]) != "alignzoo":
            continue
        with plugin_errors("in its metadata"):
            requirement = Requirement(line)
            applies = requirement.marker is None or requirement.marker.evaluate()
        if applies and not requirement.specifier.contains(alignzoo.__version__, prereleases=True):
            raise PluginError(f"needs alignzoo{requirement.specifier}; this is alignzoo {alignzoo.__version__}")


def _load_entry(entry: EntryPoint, package: Package, before: dict[tuple[str, str], Offer]) -> list[Offer]:
    """Load an entry point and return its classes.

    A package may not register two classes under one name.
    """
    with plugin_errors("on import"), time_limit():
        plugin = entry.load()
    with time_limit():
        offers = offers_of(plugin, package)
    for i, offer in enumerate(offers):
        same = [
            other for other in (*before.values(), *offers[:i]) if (other.kind, other.name) == (offer.kind, offer.name)
        ]
        if any(other.cls is not offer.cls for other in same):
            raise PluginError(f"{offer.kind} '{offer.name}' is registered twice, by {same[0].cls} and {offer.cls}")
    return offers


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

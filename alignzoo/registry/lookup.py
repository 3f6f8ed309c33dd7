"""Plugins found, checked and attributed: from a name in a recipe to a class.

A built-in name is found without importing anything third-party, so that installing a plugin never changes a run that
does not name it. What could not be loaded is kept as data and shown where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from alignzoo.core.errors import Problem, UserError, nearest
from alignzoo.registry.code import code_of_class
from alignzoo.registry.known_packages import PACKAGE_OF
from alignzoo.registry.loading import (
    OFF,
    Offer,
    PluginInfo,
    Provider,
    load_file,
    load_installed,
    load_module,
    no_plugins,
)

__all__ = ["OFF", "PluginInfo", "Provider", "Registry", "get_objective", "no_plugins", "registry"]

BUILT_IN = (
    "alignzoo.objectives.builtin", "alignzoo.objectives.modifiers", "alignzoo.data.sources", "alignzoo.data.formats",
    "alignzoo.models.sources", "alignzoo.evaluation.metrics", "alignzoo.evaluation.judges", "alignzoo.report.reporters",
)  # fmt: skip


class Registry:
    """Everything that can be named: built-ins, installed plugins, and the files that a recipe lists."""

    def __init__(self, files: Sequence[Offer] = (), base: Registry | None = None) -> None:
        self._files = list(files)
        self._base = base

    @cached_property
    def _built_in(self) -> list[Offer]:
        return self._base._built_in if self._base else [offer for name in BUILT_IN for offer in load_module(name)]

    @cached_property
    def _installed(self) -> tuple[list[Offer], list[PluginInfo]]:
        return self._base._installed if self._base else load_installed()

    def find(self, kind: str, name: str) -> type:
        """The class of a kind (of `hookspecs.KINDS`) that a recipe calls `name` or `package/name`.

        Raises UserError: with the nearest spelling, the package to install, the qualified spellings when several
        plugins offer it, and what could not be loaded.
        """
        mine = [offer for offer in (*self._built_in, *self._files) if offer.kind == kind]
        for offer in mine:
            if _is_called(offer, name):
                return offer.cls
        others = [offer for offer in self._installed[0] if offer.kind == kind]
        found = [offer for offer in others if _is_called(offer, name)]
        if len(found) == 1:
            return found[0].cls
        if found:
            spellings = " or ".join(f"{offer.origin.package}/{offer.name}" for offer in found)
            raise UserError(f"{kind} '{name}' is offered by {len(found)} plugins", expected=spellings)
        raise UserError([self._unknown(kind, name, [offer.name for offer in (*mine, *others)])])

    def _unknown(self, kind: str, name: str, known: list[str]) -> Problem:
        elsewhere = PACKAGE_OF.get(kind, {})
        close = "" if name in elsewhere else nearest(name, [*known, *elsewhere])
        package = elsewhere.get(name) or (elsewhere.get(close) if close not in known else None)
        expected = "" if package or close else f"one of {', '.join(sorted(set(known)))}"
        infos = self._installed[1]
        hints = [f"{info.package} was not loaded: {info.problem}" for info in infos if info.problem]
        if package and package not in [info.package for info in infos]:
            hints.insert(0, f"{close or 'it'} is in another package: pip install {package}")
        return Problem(f"no {kind} is called '{name}'", expected=expected, nearest=close, hint="\n    ".join(hints))

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

    def failures(self) -> list[PluginInfo]:
        """What could not be loaded, if plugins were looked at in this process; unlike `plugins`, imports nothing."""
        infos = self._installed[1] if "_installed" in self.__dict__ else []
        return [info for info in infos if info.problem not in ("", OFF)]

    def origin(self, cls: type) -> Provider:
        """Who offers a class that `find` or `known` returned. Installed plugins are looked at only if need be."""
        return self._offer(cls).origin

    def code(self, cls: type) -> str:
        """The digest of a class's code: `origin(cls).code` where somebody offers it, else that of its own package."""
        offers = (*self._built_in, *self._files, *self._installed[0])
        return next((offer.origin.code for offer in offers if offer.cls is cls), None) or code_of_class(cls)

    def spelling(self, cls: type) -> str:
        """How a recipe names such a class so that no other is meant: by its name, or by `package/name`."""
        mine = self._offer(cls)
        if mine in (*self._built_in, *self._files):
            return mine.name
        offers = (*self._built_in, *self._files, *self._installed[0])
        several = [offer for offer in offers if (offer.kind, offer.name) == (mine.kind, mine.name)]
        return mine.name if len(several) == 1 else f"{mine.origin.package}/{mine.name}"

    def _offer(self, cls: type) -> Offer:
        for offer in (*self._built_in, *self._files):
            if offer.cls is cls:
                return offer
        return next(offer for offer in self._installed[0] if offer.cls is cls)

    def with_files(self, paths: Sequence[Path]) -> Registry:
        """A registry that also knows the unpackaged plugins (.py files) that a recipe lists.

        Raises UserError, with file and line, for a file that can't be loaded or that takes a built-in's name.
        """
        files = list(self._files)
        taken = {(offer.kind, offer.name) for offer in (*self._built_in, *files)}
        for path in paths:
            for offer in load_file(path):
                if (offer.kind, offer.name) in taken:
                    raise UserError(
                        f"{offer.kind} '{offer.name}' exists already", where=str(path), expected="another name"
                    )
                taken.add((offer.kind, offer.name))
                files.append(offer)
        return Registry(files, self)


def _is_called(offer: Offer, name: str) -> bool:
    package, _, plain = name.rpartition("/")
    return plain == offer.name and canonicalize_name(package) in ("", canonicalize_name(offer.origin.package))


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

"""Look up the class of a name in a recipe.

A built-in name is found without importing third-party code, so that installing a plugin never changes a run that does
not name it. Plugins that fail to load are listed in error messages on unknown names.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.utils import canonicalize_name

from alignzoo.core.errors import Problem, UserError, nearest
from alignzoo.registry.code import code_of_class
from alignzoo.registry.in_memory import IN_MEMORY, offer_in_memory
from alignzoo.registry.known_packages import PACKAGE_OF
from alignzoo.registry.loading import (
    OFF,
    PluginInfo,
    load_file,
    load_installed,
    load_module,
    no_plugins,
)
from alignzoo.registry.offers import Offer, Provider

if TYPE_CHECKING:
    from alignzoo.interfaces.component import Component

__all__ = ["OFF", "PluginInfo", "Provider", "Registry", "get_objective", "no_plugins", "registry"]

BUILT_IN = (
    "alignzoo.objectives.builtin", "alignzoo.objectives.modifiers", "alignzoo.data.sources", "alignzoo.data.formats",
    "alignzoo.models.sources", "alignzoo.evaluation.metrics", "alignzoo.evaluation.judges", "alignzoo.report.reporters",
    "alignzoo.compare.executors",
)  # fmt: skip


class Registry:
    """All components: built-ins, installed plugins, and the plugin files that a recipe lists."""

    def __init__(self, files: Sequence[Offer] = (), base: Registry | None = None) -> None:
        self._files = list(files)
        self._base = base

    @property
    def in_memory(self) -> list[type[Component]]:
        """The classes that `with_classes` added."""
        return [offer.cls for offer in self._files if offer.origin.package == IN_MEMORY]

    def has(self, cls: type) -> bool:
        """Return True for a class from `find` or `known`; plugins are loaded if necessary."""
        return any(offer.cls is cls for offer in (*self._built_in, *self._files)) or any(
            offer.cls is cls for offer in self._installed[0]
        )

    @cached_property
    def _built_in(self) -> list[Offer]:
        return self._base._built_in if self._base else [offer for name in BUILT_IN for offer in load_module(name)]

    @cached_property
    def _installed(self) -> tuple[list[Offer], list[PluginInfo]]:
        return self._base._installed if self._base else load_installed()

    def find(self, kind: str, name: str) -> type:
        """Return the class of a kind that a recipe calls `name` or `package/name`.

        Kinds are the keys of `hookspecs.KINDS`.

        Raises:
            UserError: the name is unknown or ambiguous. The error has the nearest name, the package to install, the
                names with their packages, or the plugins that failed to load.
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

    def find_all(self, name: str) -> list[tuple[str, type]]:
        """Return (kind, class) of everything called `name`: built-ins, or else installed plugins."""
        mine = [offer for offer in (*self._built_in, *self._files) if _is_called(offer, name)]
        found = mine or [offer for offer in self._installed[0] if _is_called(offer, name)]
        return [(offer.kind, offer.cls) for offer in found]

    def _unknown(self, kind: str, name: str, known: list[str]) -> Problem:
        packaged = PACKAGE_OF.get(kind, {})
        close = "" if name in packaged else nearest(name, [*known, *packaged])
        package = packaged.get(name) or (packaged.get(close) if close not in known else None)
        expected = "" if package or close else f"one of {', '.join(sorted(set(known)))}"
        infos = self._installed[1]
        hints = [f"{info.package} was not loaded: {info.problem}" for info in infos if info.problem]
        if package and package not in [info.package for info in infos]:
            hints.insert(0, f"{close or name} is in another package: pip install {package}")
        return Problem(f"no {kind} is called '{name}'", expected=expected, nearest=close, hint="\n    ".join(hints))

    def known(self, kind: str) -> dict[str, type]:
        """Return name -> class for a kind; `package/name` for a plugin's name that is not unique."""
        offers = [offer for offer in (*self._built_in, *self._files, *self._installed[0]) if offer.kind == kind]
        names = [offer.name for offer in offers]
        result: dict[str, type] = {}
        for offer in offers:
            plain = names.count(offer.name) == 1 or offer.origin.package == "alignzoo"
            result[offer.name if plain else f"{offer.origin.package}/{offer.name}"] = offer.cls
        return result

    def plugins(self) -> list[PluginInfo]:
        """Return all installed plugins, loaded or not, sorted by package."""
        return self._installed[1]

    def failures(self) -> list[PluginInfo]:
        """Return the plugins that failed to load in this process.

        It does not import plugins itself.
        """
        infos = self._installed[1] if "_installed" in self.__dict__ else []
        return [info for info in infos if info.problem not in ("", OFF)]

    def origin(self, cls: type) -> Provider:
        """Return the package of a class from `find` or `known`.

        Installed plugins are loaded only if necessary.
        """
        return self._offer(cls).origin

    def code(self, cls: type) -> str:
        """Return the digest of a class's code.

        It is `origin(cls).code` if the class is registered, else the digest of its package.
        """
        offers = (*self._built_in, *self._files, *self._installed[0])
        return next((offer.origin.code for offer in offers if offer.cls is cls), None) or code_of_class(cls)

    def spelling(self, cls: type) -> str:
        """Return the unambiguous name of a class in a recipe.

        It is `name`, or `package/name` if several plugins offer it.
        """
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
        """Return a registry that also has the plugin files (.py) that a recipe lists.

        Raises:
            UserError: a file fails to load or uses the name of a built-in; the error has the file and the line.
        """
        return self._with((str(path), offer) for path in paths for offer in load_file(path))

    def with_classes(self, classes: Sequence[type[Component]]) -> Registry:
        """Return a registry that also has classes that no plugin registers.

        Raises:
            UserError: a class is wrong, has the name of another, or its code can't be identified.
        """
        return self._with((cls.__qualname__, offer_in_memory(cls)) for cls in dict.fromkeys(classes))

    def _with(self, offers: Iterable[tuple[str, Offer]]) -> Registry:
        """Return a registry that also has these offers, each with its place."""
        files = list(self._files)
        taken = {(offer.kind, offer.name) for offer in (*self._built_in, *files)}
        for where, offer in offers:
            if (offer.kind, offer.name) in taken:
                raise UserError(f"{offer.kind} '{offer.name}' exists already", where=where, expected="another name")
            taken.add((offer.kind, offer.name))
            files.append(offer)
        return Registry(files, self)


def _is_called(offer: Offer, name: str) -> bool:
    package, _, plain = name.rpartition("/")
    return plain == offer.name and canonicalize_name(package) in ("", canonicalize_name(offer.origin.package))


@lru_cache(maxsize=1)
def registry() -> Registry:
    """Return the registry of this process.

    `ALIGNZOO_PLUGINS` (a comma-separated list of packages) is read once.
    """
    return Registry()


def get_objective(name: str, **fields: Any) -> Any:
    """Return an objective by name: `get_objective("dpo", beta=0.1)`.

    Raises:
        UserError: the name or a field is wrong, as in a recipe.
    """
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

"""Search for recipes: files, and the recipes that come with alignzoo."""

from __future__ import annotations

import os
from pathlib import Path

from alignzoo.core.errors import UserError, nearest
from alignzoo.core.paths import runs_root


def shipped_recipes() -> Path:
    """Return the folder of the shipped recipes.

    It is in the package when installed, and beside it in a checkout.
    """
    package = Path(__file__).parent.parent
    return package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"


def shipped_recipe(name: str | Path) -> Path | None:
    """Return the path of a shipped recipe, or None.

    `dpo_hh`, `dpo_hh.yaml` and `recipes/dpo_hh.yaml` name the same one.
    """
    inside = _inside(Path(name))
    if not inside.name:
        return None
    candidate = shipped_recipes() / inside.with_name(f"{inside.name}{'' if inside.suffix == '.yaml' else '.yaml'}")
    return candidate.resolve() if not inside.is_absolute() and candidate.is_file() else None


def _inside(given: Path) -> Path:
    return Path(*given.parts[1:]) if given.parts[:1] == ("recipes",) else given


def find_recipe(path: str | Path) -> Path:
    """Return the absolute path of a recipe.

    `path` is a file, a run folder that has the recipe, a shipped recipe, or the name of a folder in the folder of runs.

    Raises:
        UserError: There is no such recipe; the error has the nearest name.
    """
    given = Path(os.path.expanduser(path))  # leaves a user that does not exist as it is
    if os.path.isfile(given / "recipe.yaml"):  # False where this user can't look
        return (given / "recipe.yaml").resolve()
    if os.path.isfile(given):
        return given.resolve()
    found = shipped_recipe(path)
    if found is not None:
        return found
    if os.path.isfile(runs_root() / given / "recipe.yaml"):
        return (runs_root() / given / "recipe.yaml").resolve()
    shipped, inside = shipped_recipes(), _inside(given)
    names = [other.relative_to(shipped).as_posix() for other in shipped.rglob("*.yaml")]
    try:
        siblings = [other.name for other in given.parent.iterdir()]
    except (OSError, ValueError):  # no folder, or none that can be read
        siblings = []
    close = nearest(given.name, siblings) or nearest(inside.as_posix(), names) or nearest(f"{inside.name}.yaml", names)
    raise UserError("no such recipe", where=str(path), nearest=close, expected="" if close else "a .yaml file")

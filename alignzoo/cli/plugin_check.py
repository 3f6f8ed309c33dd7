"""`alignzoo plugins check`: run the conformance kit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from alignzoo.interfaces.objective import Objective
    from alignzoo.registry.lookup import Registry


@dataclass(frozen=True)
class Checked:
    """Results of the conformance kit for an objective or a modifier.

    A modifier is checked on an objective that it applies to.
    """

    name: str
    package: str
    checks: dict[str, str]
    """Name of the check -> the problem, or ""."""
    held_constant: str = ""

    @property
    def failed(self) -> int:
        """Number of failed checks."""
        return sum(map(bool, self.checks.values()))


@click.command(name="check")
@click.argument("name", required=False)
@click.argument("fields", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--file", "files", multiple=True, type=Path, help="A plugin file (.py) that is not installed; repeatable."
)
@click.option("--all", "everything", is_flag=True, help="Check every built-in and installed plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(
    ctx: click.Context,
    name: str | None,
    fields: tuple[str, ...],
    files: tuple[Path, ...],
    everything: bool,
    as_json: bool,
) -> None:
    """Check an objective, or everything that a package registers.

    NAME is an objective, with fields KEY=VALUE, or a package. With --file alone, check everything in the file. The exit
    code is 1 if any check fails.
    """
    if name is not None and "=" in name:
        fields, name = (name, *fields), None
    found = list(_checked(name, fields, files, everything))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=2))
    elif len(found) == 1:
        _print_one(found[0])
    else:
        _print_many(found)
    ctx.exit(int(any(one.failed for one in found)))


def _checked(name: str | None, words: Sequence[str], files: Sequence[Path], everything: bool) -> Iterator[Checked]:
    from alignzoo.core.errors import UserError
    from alignzoo.recipe.parse import read_overrides
    from alignzoo.registry.lookup import registry

    known = registry().with_files(files)
    fields = {".".join(path): node.plain() for path, node in read_overrides(words)}
    packages = _packages(name, files, everything, known)
    if name is None and packages == set():
        raise UserError("nothing to check", expected="an objective, a package, --file FILE or --all")
    mine = [] if packages == set() else list(_of(packages, known))
    if not mine and name is not None:
        cls = known.find("objective", name)
        yield _run(name, known.origin(cls).package, _instance(cls, name, fields))
        return
    if not mine:
        raise UserError("no objective or modifier is registered", where=", ".join(map(str, files)))
    if fields and len(mine) > 1:
        raise UserError(f"{words[0]}: ambiguous field", expected=f"one of {', '.join(n for n, _, _ in mine)} before it")
    for one, kind, cls in mine:
        package = known.origin(cls).package
        try:
            objective = _instance(cls, one, fields)
        except UserError as error:
            yield Checked(one, package, {"can_be_made": f"{error.problems[0]}; check it alone, with key=value"})
            continue
        if kind == "objective":
            yield _run(one, package, objective)
        elif (around := _wrapped(objective)) is not None:
            yield _run(f"{one} on {around.inner.name}", package, around)


def _packages(name: str | None, files: Sequence[Path], everything: bool, known: Registry) -> set[str] | None:
    """Packages to check: None for all, the empty set when `name` is an objective."""
    from packaging.utils import canonicalize_name

    if everything:
        return None
    if name is None:
        return {path.name for path in files}
    packages = {"alignzoo", *(info.package for info in known.plugins())}
    wanted = str(canonicalize_name(name))
    return {wanted} if wanted in packages and name not in known.known("objective") else set()


def _of(packages: set[str] | None, known: Registry) -> Iterator[tuple[str, str, type]]:
    """Name, kind and class of everything that packages register, by name."""
    for kind in ("objective", "modifier"):
        for name, cls in sorted(known.known(kind).items()):
            if packages is None or known.origin(cls).package in packages:
                yield name, kind, cls


def _instance(cls: type, name: str, fields: dict[str, Any]) -> Any:
    from pydantic import ValidationError

    from alignzoo.core.errors import Problem, UserError, nearest

    try:
        return cls(**fields)
    except ValidationError as error:
        problems = []
        for item in error.errors():
            key = ".".join(map(str, item["loc"]))
            unknown = item["type"] == "extra_forbidden"
            what = "no such field" if unknown else f"{item['msg']} (got {item['input']!r})"
            what = "required" if item["type"] == "missing" else what
            close = nearest(key, getattr(cls, "model_fields", {})) if unknown else ""
            problems.append(Problem(f"{name}.{key}: {what}", nearest=close))
        raise UserError(problems) from None


def _wrapped(modifier: Any) -> Any:
    """Wrap a modifier around a built-in objective; None if it applies to none."""
    from alignzoo.objectives.builtin.dpo import DPO
    from alignzoo.objectives.builtin.sft import SFT
    from alignzoo.objectives.compatibility import incompatibility
    from alignzoo.objectives.composition import Modified

    tried = (Modified(inner=inner, modifiers=(modifier,)) for inner in (DPO(), SFT()))
    return next((one for one in tried if not incompatibility(one)), None)


def _run(name: str, package: str, objective: Objective) -> Checked:
    from alignzoo.testing import held_constant, run_checks

    return Checked(name, package, run_checks(objective), held_constant(objective))


def _print_one(one: Checked) -> None:
    from alignzoo.cli.tables import print_table

    results = {check: problem or "ok" for check, problem in one.checks.items()}
    if one.held_constant:
        results["gradient_is_right"] = f"not compared: {one.held_constant}"
    print_table(("CHECK", one.name), results.items())
    checks = len(one.checks)
    click.echo(f"\n{one.failed} of {checks} checks failed" if one.failed else f"\nall {checks} checks passed")


def _print_many(found: Sequence[Checked]) -> None:
    from alignzoo.cli.tables import print_table

    def row(one: Checked) -> tuple[str, str, str, str]:
        problems = [f"{check}: {problem}" for check, problem in one.checks.items() if problem]
        constant = f"held constant: {one.held_constant}" if one.held_constant else ""
        passed = f"{len(one.checks) - one.failed} of {len(one.checks)}"
        return one.name, one.package, passed, "\n".join(problems) or constant

    print_table(("OBJECTIVE", "FROM", "PASSED", "PROBLEMS, OR HELD CONSTANT"), map(row, found))
    bad = sum(one.failed > 0 for one in found)
    click.echo(f"\n{bad} of {len(found)} failed" if bad else f"\nall {len(found)} passed every check")

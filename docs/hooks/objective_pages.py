"""A page for each objective and modifier, and the page that lists them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from equations import to_markdown
from generate import DOCS, HAVE, catalogue, cell, have, package, paper, paragraphs_of, picture, sentence, table, usage

from alignzoo.cli.describe import lines_of, needs
from alignzoo.interfaces.objective import Objective
from alignzoo.report.loss_curves import shape_of
from alignzoo.report.objective_plots import write_zoo

SYMBOLS = r"""
$\pi$ is the policy, $\pi_{\mathrm{ref}}$ the reference, $\sigma$ the sigmoid, $y_w$ the chosen and $y_l$ the rejected
completion, $\left|y\right|$ the number of its scored tokens, and
$h = \log \, \frac{\pi_w}{\pi_{\mathrm{ref},w}} - \log \, \frac{\pi_l}{\pi_{\mathrm{ref},l}}$. Logarithms are natural.
"""


def path_of(cls: Any) -> str:
    """Return the page of an objective or a modifier, below the folder of the documentation."""
    return f"objectives/{cls.name}.md"


def pages(drawn: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield the path and the text of the list and of every page.

    Args:
        drawn: Paths of the pictures that there are.
    """
    objectives, modifiers = catalogue("objective"), catalogue("modifier")
    yield "objectives.md", index(objectives, modifiers)
    remarks = defaults()
    for cls in [*objectives, *modifiers]:
        picture = f"\n## Picture\n\n![Loss and gradients of {cls.name}](pictures/{cls.name}.svg)\n"
        yield path_of(cls), page(cls, remarks.get(cls.name, "")) + picture * (picture_path(cls) in drawn)


def pictures() -> Iterator[tuple[str, bytes]]:
    """Yield the path and the bytes of the picture of every objective that can be drawn."""
    with TemporaryDirectory() as folder:
        for cls in catalogue("objective"):
            shape = shape_of(cls.name, cls)
            if not shape.problem:
                file = Path(folder, f"{cls.name}.svg")
                write_zoo([shape], file, columns=1)
                yield picture_path(cls), file.read_bytes()


def picture_path(cls: Any) -> str:
    """Return the path of an objective's picture."""
    return f"objectives/pictures/{cls.name}.svg"


def navigation() -> list[Any]:
    """Return the entries of the navigation below "Objectives": families, then modifiers."""
    found: list[Any] = []
    for family, some in groupby(catalogue("objective"), key=lambda cls: cls.family):
        found.append({sentence(family): [{cls.name: path_of(cls)} for cls in some]})
    return [*found, {"Modifiers": [{cls.name: path_of(cls)} for cls in catalogue("modifier")]}]


def index(objectives: list[Any], modifiers: list[Any]) -> str:
    """The list by data and by family."""
    lines = [
        "# Objectives\n\nEvery objective has a page with its formula, paper, fields and picture. The "
        "[FAQ](faq.md#which-objective) has advice on the choice.\n\n"
        "## By what you have\n\n| you have | objectives |\n|---|---|\n"
    ]
    for key, words in HAVE.items():
        names = ", ".join(f"[`{cls.name}`]({path_of(cls)})" for cls in objectives if have(cls) == key)
        if names:
            lines.append(f"| {words} | {names} |\n")
    for family, some in groupby(objectives, key=lambda cls: cls.family):
        lines.append(f"\n## {sentence(family)}\n\n![Loss and gradients]({picture(family).relative_to(DOCS)})\n\n")
        lines += listed(some)
    lines.append("\n## Modifiers\n\nA modifier changes the inputs or the loss of an objective.\n\n")
    return "".join([*lines, *listed(modifiers)])


def listed(classes: Any) -> Iterator[str]:
    """A table with the first line of each docstring."""
    yield "| name | what it is |\n|---|---|\n"
    for cls in classes:
        yield f"| [`{cls.name}`]({path_of(cls)}) | {cell(paragraphs_of(cls)[0])} |\n"


def page(cls: Any, remark: str) -> str:
    """The page of an objective or a modifier."""
    objective, id = issubclass(cls, Objective), paper(cls)
    fields = [key for key, info in cls.model_fields.items() if info.annotation in (int, float)]
    formula = to_markdown(cls.equation, [cls.model_fields[key].alias or key for key in fields])
    source = f"[{cls.source}](https://arxiv.org/abs/{id})" if id else cls.source
    rows = {
        "Data": HAVE[have(cls)] if objective else "",
        "Needs": needs(cls),
        "Use it when": usage(cls, "When"),
        "Not when": usage(cls, "Not when"),
        "Held constant": cls.stop_gradient,
        "Paper": source,
        "Package": package(cls).replace("](../", "](../../") or "built in",
        "Lines of code": str(lines_of(cls)),
    }
    text = "\n\n".join(paragraphs_of(cls))
    lines = [
        f'# {cls.name}\n\n{text}\n\n!!! abstract "{"Loss" if objective else "Change"}"\n\n    {formula}\n{SYMBOLS}'
    ]
    lines.append(
        "\n| | |\n|---|---|\n" + "".join(f"| {key} | {cell(value)} |\n" for key, value in rows.items() if value)
    )
    lines.append(f"\n## In a recipe\n\n```yaml\n{snippet(cls, objective)}```\n")
    if package(cls):
        name = cls.__module__.partition(".")[0].replace("_", "-")
        lines.append(f"\nIt is in a package: `pip install ./plugins/{name}` in a checkout of alignzoo.\n")
    if cls.model_fields:
        title = "## Fields" if objective else "## Fields of the modifier"
        prefix = "objective." if objective else "objective.modifiers[]."
        lines += ["".join(table("Fields", prefix, cls)).replace("### Fields", title)]
    if remark:
        lines.append(f"\n## Elsewhere\n\n{remark}")
    return "".join(lines)


def snippet(cls: Any, objective: bool) -> str:
    """The lines of a recipe that name it, with the defaults of its numbers."""
    shown = {
        info.alias or key: info.default
        for key, info in cls.model_fields.items()
        if isinstance(info.default, int | float)
    }
    named = ", ".join([f"name: {cls.name}", *(f"{key}: {str(value).lower()}" for key, value in shown.items())])
    return f"objective: {{{named}}}\n" if objective else f"objective: {{name: dpo, modifiers: [{{{named}}}]}}\n"


def defaults() -> dict[str, str]:
    """What docs/objectives_defaults.md has of each objective, as a list."""
    found: dict[str, str] = {}
    for line in (DOCS / "objectives_defaults.md").read_text(encoding="utf-8").splitlines():
        if re.match(r"\| `", line):
            names, *cells = [part.strip() for part in line.strip("|").split(" | ")]
            titles = ("In the authors' code", "In TRL", "Here", "Why")
            text = "".join(f"- {title}: {value}\n" for title, value in zip(titles, cells, strict=True))
            found |= {name: text for name in re.findall(r"`(\w+)`", names)}
    return found

"""A run's report.html: one self-contained page, for finished and unfinished runs."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from alignzoo.core.door import read_text, translate
from alignzoo.core.files import write_page
from alignzoo.report import rollouts
from alignzoo.report.curves import panels
from alignzoo.report.diagnosis import kept_step, signs
from alignzoo.report.glossary import TERMS
from alignzoo.report.summary import summary_lines
from alignzoo.training.headline import headline, kind_of_rows, with_start
from alignzoo.training.records import SETTINGS, Line, Sample, ShownRow, read_data_report, read_lines
from alignzoo.training.run_folder import RunFolder


def write_report(folder: Path) -> Path:
    """Write `folder/report.html` and return its path. The same files give the same bytes."""
    with translate(folder, "the run's records", "run the recipe again, or with --fresh"):
        page = _page(folder)
    path = folder / "report.html"
    write_page(path, page)
    return path


def _page(folder: Path) -> str:
    summary, data = RunFolder(folder).summary() or {}, read_data_report(folder)
    recipe = folder / "recipe.yaml"
    lines = read_lines(folder / "metrics.jsonl", Line, nan=True)
    of = summary.get("accuracy_of") or {"rows": kind_of_rows(data.get("lengths", {}))}
    evals = [line for line in lines if line.get("kind") == "eval"]
    chosen = kept_step(summary)
    last: dict[str, Any] = next((line for line in evals if line["step"] == chosen), evals[-1] if evals else {})
    return _template().render(
        name=summary.get("name", folder.name),
        finished=bool(summary.get("finished")),
        summary=summary,
        rows=summary_lines(summary) if summary.get("finished") else [],
        last=last,
        figures=headline(with_start([*evals[:1], last] if evals else []), of),
        changes=[
            (line["step"], {key: value for key, value in line.items() if key not in ("kind", "step")})
            for line in lines
            if line.get("kind") == SETTINGS
        ],
        steps=max((line["step"] for line in lines), default=0),
        replies=any(line.get("kind") == "replies" for line in lines),
        panels=[(title, Markup(svg)) for title, svg in panels(lines, of)],  # drawn from numbers alone
        samples=[
            sample | {"turns": turns(sample["prompt"])} for sample in read_lines(folder / "samples.jsonl", Sample)
        ],
        rollout_panels=[(title, Markup(svg)) for title, svg in rollouts.plots(folder, lines)],
        rollouts=[
            view | {"prompts": [one | {"turns": turns(one["prompt"])} for one in view["prompts"]]}
            for view in rollouts.browser(folder, lines)
        ],
        signs=signs(folder, lines, data, chosen) if lines else [],
        data=data,
        glossary=TERMS.items(),
        shown=read_lines(folder / "rows.jsonl", ShownRow),
        recipe=read_text(recipe) if recipe.is_file() else "",
    )


def turns(prompt: str) -> list[tuple[str, str]]:
    """Return an HH prompt as (speaker, text) turns; any other prompt as one turn."""
    pieces = re.split(r"\n\n(Human|Assistant):", prompt)
    if len(pieces) < 3:
        return [("", prompt)]
    pairs = zip(pieces[1::2], pieces[2::2], strict=True)
    return [(speaker, text.strip()) for speaker, text in pairs if text.strip()]


@lru_cache(maxsize=1)
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("alignzoo.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("report.html.j2")

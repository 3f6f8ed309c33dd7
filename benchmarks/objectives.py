"""Table of every objective and modifier: paper, needs, lines, conformance, difference from peers.

Run as: python benchmarks/objectives.py

The scripts of benchmarks/peers recorded the peers' numbers. The cases, with differences and reasons, are the zoo's tests.
Exits with 1 when a conformance check fails.
"""

from __future__ import annotations

import json
import platform
import statistics
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
ZOO = ROOT / "plugins" / "alignzoo-zoo"
sys.path[:0] = [str(ZOO), str(ZOO / "tests")]

import test_formulas  # noqa: E402
import test_peer_authors  # noqa: E402
import test_peer_halos  # noqa: E402
import test_peer_liger  # noqa: E402
import test_peer_trl  # noqa: E402
from alignzoo_zoo import MODIFIERS, OBJECTIVES  # noqa: E402
from peers import farthest  # noqa: E402

import alignzoo  # noqa: E402
from alignzoo.cli.describe import lines_of, needs, paper  # noqa: E402
from alignzoo.interfaces.objective import Objective  # noqa: E402
from alignzoo.interfaces.requirements import ScoredComponent  # noqa: E402
from alignzoo.objectives.builtin import register_objectives  # noqa: E402
from alignzoo.objectives.builtin.dpo import DPO  # noqa: E402
from alignzoo.objectives.composition import Modified  # noqa: E402
from alignzoo.objectives.modifiers import register_modifiers  # noqa: E402
from alignzoo.testing import held_constant, run_checks  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
HEADINGS = ("name", "family", "paper", "needs", "package", "lines", "conformance", "formula")


def peers() -> dict[str, dict[str, tuple[str, float]]]:
    """Peer -> name -> the peer's loss that is the farthest, and its largest relative difference."""
    trl, liger = test_peer_trl.RECORD.data["trl"], test_peer_liger.RECORD.data["liger_kernel"]
    return {
        f"TRL {trl}": farthest(test_peer_trl.differences()),
        f"Liger-Kernel {liger}": farthest(test_peer_liger.differences()),
        "HALOs": farthest(test_peer_halos.differences()),
        "authors and others": farthest(test_peer_authors.all_differences()),
    }


def measure(
    cls: type[ScoredComponent], package: str, compared: dict[str, dict[str, tuple[str, float]]]
) -> dict[str, Any]:
    """With its defaults; a modifier on DPO."""
    alone = issubclass(cls, Objective)
    objective = cls() if alone else Modified(inner=DPO(), modifiers=(cls(),))
    found = run_checks(objective)
    return {
        "kind": "objective" if alone else "modifier",
        "name": cls.name,
        "family": cls.family,
        "paper": paper(cls),
        "source": cls.source,
        "needs": needs(cls),
        "package": package,
        "lines": lines_of(cls),
        "formula": test_formulas.formula_difference(cls) if cls.name in test_formulas.FORMULAS else None,
        "checks": len(found),
        "passed": sum(not problem for problem in found.values()),
        "problems": {check: problem for check, problem in found.items() if problem},
        "held_constant": held_constant(objective),
        "peers": {
            peer: dict(zip(("loss", "difference"), table[cls.name], strict=True))
            for peer, table in compared.items()
            if cls.name in table
        },
    }


def markdown(entries: list[dict[str, Any]], names: list[str], versions: dict[str, str]) -> str:
    def table(kind: str) -> str:
        rows = [
            [
                f"`{one['name']}`", one["family"],
                f"[{one['paper']}](https://arxiv.org/abs/{one['paper']})" if one["paper"] else one["source"].partition(",")[0],
                one["needs"], one["package"], str(one["lines"]), f"{one['passed']} of {one['checks']}",
                "" if one["formula"] is None else f"{one['formula']:.0e}",
                *(f"{one['peers'][peer]['difference']:.0e}" if peer in one["peers"] else "" for peer in names),
            ]
            for one in entries if one["kind"] == kind
        ]  # fmt: skip
        head = [*HEADINGS, *names]
        rule = ["---"] * 5 + ["---:"] * (len(head) - 5)
        return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))

    objectives = [one for one in entries if one["kind"] == "objective"]
    constant = "\n".join(f"- `{one['name']}`: {one['held_constant']}" for one in entries if one["held_constant"])
    alone = ", ".join(f"`{one['name']}`" for one in objectives if not one["peers"])
    whose = "\n".join(
        f"- `{case.name}`: {case.peer}, {far:.0e}{f' ({case.differs})' if case.differs else ''}"
        for case, far in sorted(test_peer_authors.all_differences(), key=lambda one: (one[0].name, one[0].peer))
    )
    lines = statistics.median(one["lines"] for one in objectives)
    counts = ", ".join(f"{sum(name in one['peers'] for one in objectives)} to {name}" for name in names)
    return f"""# Objectives and modifiers

Lines are those of the class, without blank ones and docstrings; helpers that several share are not counted. Conformance is
the kit's checks with the defaults (a modifier's on DPO). "Formula" is the largest relative difference from the
paper's formula, written again in float64. A peer's column has the largest relative difference between our
loss and the peer's of the same log-probabilities, over all its settings that are compared; TRL computes four losses, and
Liger-Kernel all, in float32, where 1e-07 is the last digit. Where definitions differ, the cases in
plugins/alignzoo-zoo/tests/test_peer_*.py say whose is ours and what makes theirs of it; HALOs' losses are its published
formulas, written again in plain arithmetic. "Authors and others" is the loss, and its gradient, of the authors' own code or
of another trainer, called alone at the commit that tests/objectives/peer_authors.json names; three of them cast a part to
float32.

{table("objective")}

Whose code that is, and its largest relative difference in value and gradient:

{whose}

{table("modifier")}

{len(objectives)} objectives, compared: {counts}. No peer has: {alone}.
Every one is tested against its paper's formula, written again in plain arithmetic.

Held constant on purpose, where the kit does not compare the gradient with the derivative of the value (tests compare it
with the derivative where these are constants):

{constant}

Median lines of an objective: {lines:g}.

Command: `python benchmarks/objectives.py` ({", ".join(f"{name} {value}" for name, value in versions.items())}).
"""


def main() -> int:
    torch.set_num_threads(1)
    zoo = "alignzoo-zoo " + tomllib.loads((ZOO / "pyproject.toml").read_text())["project"]["version"]
    own, compared = f"alignzoo {alignzoo.__version__}", peers()
    classes = [
        *((cls, own) for cls in register_objectives()), *((cls, zoo) for cls in OBJECTIVES),
        *((cls, own) for cls in register_modifiers()), *((cls, zoo) for cls in MODIFIERS),
    ]  # fmt: skip
    entries = [measure(cls, package, compared) for cls, package in classes]
    entries.sort(key=lambda one: (one["kind"] != "objective", one["family"], one["name"]))
    versions = {
        "alignzoo": alignzoo.__version__, "torch": version("torch"), "Python": platform.python_version(),
        "recorded with torch": test_peer_liger.RECORD.data["torch"],
    }  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    result = {"versions": versions, "entries": entries}
    (RESULTS / "objectives.json").write_text(json.dumps(result, indent=1) + "\n")
    (RESULTS / "objectives.md").write_text(markdown(entries, list(compared), versions))
    failed = [f"{one['name']}: {problem}" for one in entries for problem in one["problems"].items()]
    print("\n".join(failed) or f"{len(entries)} objectives and modifiers, all checks pass")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

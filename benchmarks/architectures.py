"""Every causal language model that transformers builds from a tiny config, each layout against its own forward.

Run as: python benchmarks/architectures.py [--seconds 900] [--only NAME ...]
Rows of random tokens stand below and above every length at which the tiny config can change the model. The oracle is
the untouched model, one sequence at a time, in float32. Finished architectures are kept in
benchmarks/results/architectures.json, and a later call goes on with the others. Written is docs/architectures.md.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from every_architecture import LENGTHS, names, sequence_oracle, tiny, trees_of  # noqa: E402
from transformers.utils import logging  # noqa: E402

from alignzoo.core.errors import RunFailed, UserError  # noqa: E402
from alignzoo.data.trees import Tree, Trees  # noqa: E402
from alignzoo.models.attention import use_tree_attention  # noqa: E402
from alignzoo.scoring.forest import LAYOUTS, PACKED, lay_out  # noqa: E402
from alignzoo.scoring.layout import choose_layout  # noqa: E402
from alignzoo.scoring.scorer import Scorer  # noqa: E402

KEPT = ROOT / "benchmarks" / "results" / "architectures.json"
PAGE = ROOT / "docs" / "architectures.md"
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def errors_of(scorer: Scorer, trees: list[Tree], want: torch.Tensor) -> dict[str, float | str]:
    """Of each layout the largest difference of a token's log-prob, in nats, or what the model raises."""
    found: dict[str, float | str] = {}
    for layout in LAYOUTS:
        scorer.layout, scorer.whole_head, scorer.flex, scorer.alone = layout, True, False, False
        if layout == PACKED and not scorer.packs:
            found[layout] = "its attention can't be replaced"
            continue
        try:
            with torch.no_grad():
                error = float((scorer(lay_out(trees, layout))["log_prob"] - want).abs().max())
            found[layout] = error if math.isfinite(error) else "not finite"
        except Exception as error:
            found[layout] = type(error).__name__
    use_tree_attention(scorer.model, on=False)
    return found


def tried(name: str) -> dict[str, Any]:
    """What is found for one architecture: of each type the error of each layout, and what `auto` uses."""
    trees, found = trees_of(LENGTHS), {}
    try:
        model = tiny(name)
        want = {"float32": sequence_oracle(model, trees)}
        want["bfloat16"] = sequence_oracle(model.bfloat16(), trees)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}".split("\n")[0][:160]}
    for label, dtype in TYPES.items():
        scorer = Scorer(tiny(name).to(dtype))
        errors = errors_of(scorer, trees, want[label])
        try:
            layout = choose_layout(scorer, Trees.build(trees), "auto")
            used, reason = layout.used + (", one by one" if scorer.alone else ""), layout.reason
            with torch.no_grad():
                figure = float((scorer(lay_out(trees, layout.used))["log_prob"] - want[label]).abs().max())
        except (UserError, RunFailed) as error:
            used, reason, figure = "none", str(error).split("\n")[0].split("scored: ")[-1], None
        found[label] = {"layouts": errors, "used": used, "reason": reason, "error": figure}
    return found


def cell(value: float | str) -> str:
    """A figure as the table shows it."""
    return value if isinstance(value, str) else f"{value:.1e}"


def page(results: dict[str, Any]) -> str:
    """The table, in Markdown."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "alignzoo"))
    tried_out = {name: found for name, found in sorted(results.items()) if "failed" not in found}
    used = Counter(found["float32"]["used"] for found in tried_out.values())
    lines = [
        "# Exactness by architecture", "",
        "Made by `python benchmarks/architectures.py`", f"({versions}; CPU, one thread).", "",
        "Causal language models that transformers builds from a tiny config. The weights are random, with a standard",
        f"deviation of .1. The rows have {min(LENGTHS)} to {max(LENGTHS)} tokens and stand on both sides of the length of",
        "64, at which sliding windows and attention chunks end. A figure is the largest difference of a token's",
        "log-prob, in nats, between a layout and the untouched model on one sequence at a time, in the same type.",
        "The last columns are the layout that `train.layout: auto` uses, and its error.", "",
        "In bfloat16 a figure holds rounding, and for mixtures of experts the choices of routers at near ties.",
        "A layout is therefore compared in float32 before it is used, and its leaks are searched bit by bit.", "",
        f"{len(tried_out)} architectures; used in float32: "
        + ", ".join(f"{way} {count}" for way, count in used.most_common()) + ".", "",
        "| architecture | type | packed | padded | plain | used | error |", "|---|---|---:|---:|---:|---|---:|",
    ]  # fmt: skip
    for name, found in tried_out.items():
        for label in TYPES:
            one = found[label]
            cells = [cell(one["layouts"][layout]) for layout in LAYOUTS]
            error = "" if one["error"] is None else cell(one["error"])
            lines.append(f"| {name} | {label} | {' | '.join(cells)} | {one['used']} | {error} |")
    lines += ["", "## Why a faster layout is not used", ""]
    for name, found in tried_out.items():
        if "rejected" in found["float32"]["reason"]:
            lines.append(f"- `{name}`: {found['float32']['reason']}")
    left = {name: found["failed"] for name, found in sorted(results.items()) if "failed" in found}
    lines += [
        "",
        "## Not tried",
        "",
        "No tiny model could be built from text settings alone, or its own forward fails.",
        "",
    ]
    lines += [f"- `{name}`: {why}" for name, why in left.items()]
    return "\n".join(lines) + "\n"


class TooSlow(BaseException):
    """An architecture took longer than --each. No handler of a model's own errors catches it."""


def _too_slow(signal_number: int, frame: object) -> None:
    raise TooSlow("took too long")


def main() -> None:
    """Try what is left, for so many seconds, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--each", type=int, default=60, help="seconds for one architecture")
    parser.add_argument("--only", nargs="*", default=[])
    asked = parser.parse_args()
    logging.set_verbosity_error()
    torch.set_num_threads(1)
    results = json.loads(KEPT.read_text()) if KEPT.exists() and not asked.only else {}
    start = time.monotonic()
    signal.signal(signal.SIGALRM, _too_slow)
    for name in asked.only or names():
        if name in results:
            continue
        if time.monotonic() - start > asked.seconds:
            print(f"time is over; {len(names()) - len(results)} architectures are left for the next call")
            break
        before = time.monotonic()
        signal.alarm(asked.each)
        try:
            results[name] = tried(name)
        except (Exception, TooSlow) as error:
            results[name] = {"failed": f"{type(error).__name__}: {error}".split("\n")[0][:160]}
        signal.alarm(0)
        print(f"{name}: {time.monotonic() - before:.1f} s {json.dumps(results[name])[:400]}", flush=True)
        if not asked.only:
            KEPT.write_text(json.dumps(results, indent=1) + "\n")
            PAGE.write_text(page(results))
    if not asked.only:
        PAGE.write_text(page(results))


if __name__ == "__main__":
    main()

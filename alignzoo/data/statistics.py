"""Report on the data: counts by reason, skipped rows, and token lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.data.chat_template import Thinking
from alignzoo.data.splits import SplitRows
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.interfaces.data_source import DataSource

NOTES = ("spanning", "thinking", "turns", "tool calls", "white space")


def data_report(rows: SplitRows, train: TokenizedRows, held_out: TokenizedRows, source: DataSource) -> dict[str, Any]:
    """Build the content of a run's data.json. Its counts also go into summary.json.

    `read` = `used` + `skipped` + `left_out`, and `used` = `train` + `held_out`. `left_out` counts usable rows beyond
    the source's limits.
    """
    held_out_is = (
        "taken from the training split, by group" if rows.held_out_from_train else "the source's own test split"
    )
    skipped = [*rows.skipped, *train.skipped, *held_out.skipped]
    return {
        "source": {"name": source.name} | source.model_dump(mode="json"),
        "read": rows.read,
        "used": len(train.trees) + len(held_out.trees),
        "train": len(train.trees),
        "held_out": len(held_out.trees),
        "held_out_is": held_out_is,
        "in_both_splits": rows.in_both,
        "skipped": len(skipped),
        "left_out": rows.left_out,
        "skipped_by_reason": dict(sorted(Counter(row.reason for row in skipped).items())),
        "truncated_prompts": train.truncated_prompts + held_out.truncated_prompts,
        "truncated_completions": train.truncated_completions + held_out.truncated_completions,
        "boundary": {name: train.boundary[name] + held_out.boundary[name] for name in NOTES},
        "parted": sum(int(block.parted.sum()) for part in (train, held_out) for block in part.trees.blocks()),
        "flipped": rows.flipped,
        "lengths": lengths(train, held_out),
        "skipped_rows": [{"id": row.id, "reason": row.reason, "detail": row.detail} for row in skipped],
    }


def data_warnings(report: Mapping[str, Any]) -> str:
    """Return truncation and overlap of the splits as clauses that continue a line, or ""."""
    prompts, completions = report["truncated_prompts"], report["truncated_completions"]
    clauses = []
    if prompts or completions:
        clauses.append(f"truncated: {prompts:,} prompts, the completions of {completions:,} rows")
    if report["in_both_splits"]:
        clauses.append(f"{report['in_both_splits']:,} held-out rows are also training rows")
    return "".join(f"; {clause}" for clause in clauses)


def tokenization_notes(report: Mapping[str, Any], thinking: Thinking) -> list[str]:
    """Return one line for each effect of tokenizer and chat template that occurs in the rows."""
    counts = report["boundary"]
    how = {
        "keep": "scored as given (as the template writes them with tokens.thinking=template)",
        "template": "scored as the template writes them (as given with tokens.thinking=keep)",
    }[thinking]
    lines = {
        "spanning": "rows where a token spans the end of the prompt; that token is scored with the completion",
        "thinking": f"rows whose answers the chat template shortens, {how}",
        "turns": "rows with thoughts in scored turns that the chat template leaves out, scored as it writes them",
        "tool calls": "rows whose tool calls the chat template does not write",
        "white space": "rows where the chat template changes white space in an answer, scored as it writes them",
    }
    notes = [f"{counts[name]:,} {line}" for name, line in lines.items() if counts[name]]
    if report["parted"]:
        line = "rows whose dialogues differ before the last turn; no samples are drawn for them"
        notes.append(f"{report['parted']:,} {line}")
    return notes


def lengths(*parts: TokenizedRows) -> dict[str, dict[str, float]]:
    """Summarize the lengths of prompts and of each kind of completion, in tokens.

    Returns:
        Kind (`prompt`, `chosen`, `rejected`, ...) -> mean, median, 95th percentile (`p95`) and maximum (`max`).
    """
    found: dict[str, list[NDArray[np.int64]]] = {"prompt": []}
    for block in (block for part in parts for block in part.trees.blocks()):
        found["prompt"].append(np.diff(block.segments)[block.trees[:-1]])
        sizes = block.scored
        kinds = np.diff(block.trees)
        if "desirable" in block.columns:  # the label names a single completion
            answered = kinds > 1
            kinds = 2 * kinds
            kinds[answered] += block.columns["desirable"][block.first[:-1][answered]] > 0.5
        _, examples = np.unique(kinds, return_index=True)
        for example in sorted(examples.tolist()):
            alike = block.trees[:-1][kinds == kinds[example]]
            for b, name in enumerate(block.names(example)):
                if not name.startswith("mismatched"):
                    found.setdefault(name, []).append(sizes[alike + 1 + b])
    return {name: _describe(np.concatenate(values)) for name, values in found.items() if values}


def _describe(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": round(float(values.mean()), 1),
        "median": float(np.median(values)),
        "p95": float(np.percentile(values, 95)),
        "max": int(values.max()),
    }

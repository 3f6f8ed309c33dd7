"""Report on the data: counts by reason, skipped rows, and token lengths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from alignzoo.data.chat_template import Thinking
from alignzoo.data.content import overlap_lines
from alignzoo.data.split_plan import SplitRows
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.interfaces.data_source import DataSource

if TYPE_CHECKING:
    from alignzoo.recipe.schema import Recipe, TokensConfig

NO_HELD_OUT = "none, as the recipe asks for none"
BESIDE = {"skipped": "skipped", "deduplicated": "dropped as repeated", "left_out": "left out"}
"""Key of a source's counts -> words for it."""
NOTES = ("spanning", "thinking", "turns", "tool calls", "white space")


def data_report(rows: SplitRows, train: TokenizedRows, held_out: TokenizedRows, source: DataSource) -> dict[str, Any]:
    """Build the content of a run's data.json. Its counts also go into summary.json.

    `read` + `further_pairs` = `used` + `skipped` + `left_out` + `deduplicated`, and `used` = `train` + `held_out`.
    `left_out` counts usable rows beyond the source's limits, and those that are not drawn for a mixture.
    `further_pairs` counts those of a list beyond its first one (`data.pairs`). A mixture has `sources`, the same counts
    by source.
    """
    skipped = [*rows.skipped, *train.skipped, *held_out.skipped]
    mixed = {} if "" in source.parts else {"sources": _by_source(rows, train, held_out)}
    return {
        "source": source.model_dump(mode="json", by_alias=True),
        "read": rows.read,
        "further_pairs": train.further_pairs.total() + held_out.further_pairs.total(),
        "used": len(train.trees) + len(held_out.trees),
        "train": len(train.trees),
        "held_out": len(held_out.trees),
        "held_out_is": _origin(rows, source),
        **mixed,
        "overlap": rows.overlap,
        "duplicates": rows.duplicates,
        "deduplicated": rows.deduplicated,
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


def _origin(rows: SplitRows, source: DataSource) -> str:
    if not rows.held_out_wanted:
        return NO_HELD_OUT
    if not rows.held_out_from_train:
        return "the source's own test split"
    if set(rows.from_training) == set(source.parts):
        return "taken from the training split, by group"
    return f"the test splits, and of {', '.join(rows.from_training)} taken from the training split, by group"


def _by_source(rows: SplitRows, train: TokenizedRows, held_out: TokenizedRows) -> dict[str, dict[str, int]]:
    """Return the counts of each source, with the rows that tokenization skips as skipped."""
    found = {name: dict(counts) for name, counts in rows.sources.items()}
    for key, part in (("train", train), ("held_out", held_out)):
        used = Counter(id.partition("/")[0] for block in part.trees.blocks() for id in block.ids)
        for name, counts in found.items():
            counts[key] = used[name]
    late = Counter(row.id.partition("/")[0] for part in (train, held_out) for row in part.skipped)
    for name, counts in found.items():
        counts["skipped"] += late[name]
        counts["further_pairs"] = train.further_pairs[name] + held_out.further_pairs[name]
    return found


def source_lines(sources: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Return a line for each source of a mixture: its rows, and its share of training rows."""
    total = sum(counts["train"] for counts in sources.values())
    lines = []
    for name, counts in sources.items():
        share = f" ({counts['train'] / total:.1%})" if total else ""
        more = [f"{counts[key]:,} {words}" for key, words in BESIDE.items() if counts.get(key)]
        lines.append(
            f"{name}: {counts['train']:,} training{share} and {counts['held_out']:,} held-out rows of "
            f"{read_words(counts)}" + "".join(f", {one}" for one in more)
        )
    return lines


def read_words(counts: Mapping[str, int]) -> str:
    """Return the number of rows read, and of the pairs that `data.pairs` adds to them."""
    further = counts.get("further_pairs")
    return f"{counts['read']:,} read" + (f" and {further:,} further pairs of lists" if further else "")


def data_lines(report: Mapping[str, Any], recipe: Recipe) -> list[str]:
    """Return lines on the sources of a mixture, the evaluation sets, and the rows' content.

    The last ones are those of `content_lines`.
    """
    lines = source_lines(report.get("sources", {}))
    for name, own in report.get("evaluation", {}).items():
        more = "".join(f", {own[key]:,} {words}" for key, words in BESIDE.items() if own[key])
        lines.append(f"eval.data.{name}: {own['used']:,} rows of {read_words(own)}{more}")
    return lines + content_lines(report, recipe.tokens, recipe.eval.allow_overlap)


def content_lines(report: Mapping[str, Any], tokens: TokensConfig, allow_overlap: bool = False) -> list[str]:
    """Return one line for each of: truncated rows, rows on both sides, and repeated rows.

    There is no line for a count of zero.
    """
    lines = [line] if (line := truncation_line(report, tokens)) else []
    lines += [] if allow_overlap else overlap_lines(report)
    sides = {"training rows": report["duplicates"]["train"], "held-out rows": report["duplicates"]["held_out"]}
    repeated = [f"{own['rows']:,} {what}" for what, own in sides.items() if own["rows"]]
    if repeated:
        lines.append(f"duplicates: {' and '.join(repeated)} repeat an earlier row (data.deduplicate=true drops them)")
    if report["deduplicated"]:
        lines.append(f"duplicates: {report['deduplicated']:,} repeated rows are dropped (data.deduplicate)")
    return lines


def truncation_line(report: Mapping[str, Any], tokens: TokensConfig) -> str:
    """Return how many rows are truncated, and the keys that change it.

    Rows of the evaluation sets are included.
    """
    reports = [report, *report.get("evaluation", {}).values()]
    prompts, completions = (sum(one[f"truncated_{what}"] for one in reports) for what in ("prompts", "completions"))
    parts = [f"{prompts:,} prompts to tokens.max_prompt_length={tokens.max_prompt_length}"] if prompts else []
    if completions:
        parts.append(f"the completions of {completions:,} rows to tokens.max_length={tokens.max_length}")
    return f"truncated: {' and '.join(parts)}" if parts else ""


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
        found["prompt"].append(block.prompt_lengths)
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

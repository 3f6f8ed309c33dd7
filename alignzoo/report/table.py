"""The table at the end of `alignzoo run`."""

from __future__ import annotations

from typing import Any

from rich.table import Table


def summary_table(summary: dict[str, Any]) -> Table:
    """A run's summary in a dozen lines."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, text in summary_lines(summary):
        table.add_row(name, text)
    return table


def summary_lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, value) of the figures that a person asks for first."""
    scores, train, data = summary["eval"], summary["train"], summary["data"]
    cached, scored = summary["reference"]["rows_cached"], summary["reference"]["rows_scored"]
    accuracy = []
    if "preference_accuracy" in scores:
        start = "by plain likelihood" if "likelihood_accuracy" in scores else "before training"
        figure = f"{scores['preference_accuracy']:.3f} ± {scores['preference_accuracy_se']:.3f} (n {scores['n']:,})"
        accuracy = [
            ("held-out accuracy", f"{figure}; the start {start} {scores['baseline_accuracy']:.3f}"),
            ("margin", f"{scores['margin']:.3f}"),
        ]
    lines = [
        ("objective", objective_words(summary["objective"])),
        *accuracy,
        ("loss", f"{scores['loss']:.4f} held out, {train['final_loss']:.4f} in the last step"),
        ("data", f"{data['train']:,} training rows, {data['skipped']:,} of {data['read']:,} read were skipped"),
        ("training", f"{train['steps']:,} steps in {train['seconds']:.1f} s, {train['pairs_per_second']:.0f} rows/s, "
                     f"{train['tokens_per_second']:,.0f} token slots/s"),
        ("reference", f"{scored:,} rows scored, {cached:,} from the cache" if scored + cached else "not needed"),
        ("layout", f"{summary['layout']['used']}: {summary['layout']['reason']}"),
        ("peak memory", f"{summary['peak_memory_bytes'] / 2**20:,.0f} MiB"),
    ]  # fmt: skip
    if data.get("flipped"):
        lines.insert(5, ("label noise", f"{data['flipped']:,} training labels were flipped"))
    return lines


def objective_words(node: dict[str, Any]) -> str:
    """An objective of summary.json in a line."""
    if "terms" in node:
        return " + ".join(f"{term['weight']:g} {objective_words(term)}" for term in node["terms"])
    fields = ", ".join(f"{key}={value}" for key, value in node.items() if key not in ("name", "weight", "modifiers"))
    around = "".join(f" with {one['name']}" for one in node.get("modifiers", ()))
    return f"{node['name']}({fields}){around}"

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
    fields = ", ".join(f"{key}={value}" for key, value in summary["objective"].items() if key != "name")
    cached, scored = summary["reference"]["rows_cached"], summary["reference"]["rows_scored"]
    lines = [
        ("objective", f"{summary['objective']['name']}({fields})"),
        (
            "held-out accuracy",
            f"{scores['preference_accuracy']:.3f} ± {scores['preference_accuracy_se']:.3f} (n {scores['n']:,}); "
            f"the start by plain likelihood {scores['baseline_accuracy']:.3f}",
        ),
        ("margin", f"{scores['margin']:.3f}"),
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

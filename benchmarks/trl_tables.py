"""Tables and a plot from against_trl.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

DATA = {"real": "HH", "long": "long prompts"}
MODEL = {"pythia": "Pythia-70M shape", "llama": "small Llama"}
NAMES = {
    "alignzoo": "alignzoo",
    "defaults": "TRL, defaults",
    "best": "TRL, best, reference in the step",
    "before": "TRL, best, reference before",
}
RUN = Callable[[dict], float]


def differences(results: dict) -> dict[str, float]:
    """The largest relative difference of a loss between alignzoo and any of TRL's runs, by cell."""
    found = {}
    for cell, sides in results["cells"].items():
        ours = sides["alignzoo"][0]["losses"] if "alignzoo" in sides else []
        theirs = [run["losses"] for side, runs in sides.items() if side != "alignzoo" for run in runs]
        pairs = [(a, b) for losses in theirs for a, b in zip(ours, losses, strict=False)]
        found[cell] = max((abs(a - b) / abs(b) for a, b in pairs), default=0.0)
    return found


def spread(values: list[float], form: str = ".1f") -> str:
    """The median, and the range where there are several."""
    if not values:
        return ""
    middle = format(statistics.median(values), form)
    return middle if len(values) == 1 else f"{middle} ({min(values):{form}} to {max(values):{form}})"


def ratios(sides: dict, other: str, skip: int) -> list[float]:
    """TRL's seconds over alignzoo's, of the same step of the same repeat; of the first where it ran once."""
    found = []
    for n, ours in enumerate(sides.get("alignzoo", [])):
        runs = sides.get(other, [])
        if runs:
            theirs = runs[min(n, len(runs) - 1)]["seconds"][skip:]
            found += [b / a for a, b in zip(ours["seconds"][skip:], theirs, strict=False)]
    return found


def rates(sides: dict, side: str, batch: int, skip: int) -> list[float]:
    return [batch / seconds for run in sides.get(side, []) for seconds in run["seconds"][skip:]]


def of_runs(sides: dict, side: str, what: RUN) -> list[float]:
    return [what(run) for run in sides.get(side, [])]


def over(mine: list[float], others: list[float]) -> float:
    """The ratio of two medians; nan where a side has not run."""
    return statistics.median(mine) / statistics.median(others) if mine and others else float("nan")


def reference_rate(run: dict) -> float:
    return run["reference_pairs"] / run["reference_seconds"]


def peak(run: dict) -> float:
    return run["peak_bytes"] / 2**20


def growth(run: dict) -> float:
    return (run["peak_bytes"] - run["import_bytes"]) / 2**20


def startup(run: dict) -> float:
    return run["startup_seconds"] - run["references_seconds"]


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def training(results: dict) -> list[str]:
    about = results["about"]
    skip = about["warm_up"]
    lines = [
        row("data", "model", "precision", "alignzoo, pairs/s", *(NAMES[side] for side in ("defaults", "best", "before")),
            "times the defaults", "times the best, in the step", "times the best, before"),
        "|---|---|---|" + "---:|" * 7,
    ]  # fmt: skip
    for cell, sides in results["cells"].items():
        data, shape, precision = cell.split("/")
        speeds = [spread(rates(sides, side, about["batch"][shape], skip)) for side in NAMES]
        times = [spread(ratios(sides, side, skip)) for side in ("defaults", "best", "before")]
        lines.append(row(DATA[data], MODEL[shape], precision, *speeds, *(f"**{time}**" for time in times)))
    return lines


def references(results: dict) -> list[str]:
    lines = [
        row("data", "model", "precision", "alignzoo, pairs/s", "TRL, best", "times"),
        "|---|---|---|---:|---:|---:|",
    ]
    for cell, sides in results["cells"].items():
        data, shape, precision = cell.split("/")
        ours, theirs = (of_runs(sides, side, reference_rate) for side in ("alignzoo", "before"))
        lines.append(
            row(DATA[data], MODEL[shape], precision, spread(ours), spread(theirs), f"**{over(ours, theirs):.1f}**")
        )
    return lines


def memory(results: dict) -> list[str]:
    lines = [
        row("data", "model", "precision", *(f"{NAMES[side]}, MiB" for side in NAMES), "share of the defaults",
            "share of the best, before"), "|---|---|---|" + "---:|" * 6,
    ]  # fmt: skip
    for cell, sides in results["cells"].items():
        data, shape, precision = cell.split("/")
        shown, shares = [], []
        for side in NAMES:
            whole, grown = (statistics.median(of_runs(sides, side, what) or [float("nan")]) for what in (peak, growth))
            shown.append(f"{whole:,.0f} (+{grown:,.0f})")
        for side in ("defaults", "before"):
            whole, grown = (
                over(of_runs(sides, "alignzoo", what), of_runs(sides, side, what)) for what in (peak, growth)
            )
            shares.append(f"{whole:.2f} ({grown:.2f})")
        lines.append(row(DATA[data], MODEL[shape], precision, *shown, *shares))
    return lines


def startups(results: dict) -> list[str]:
    lines = [row("data", "model", "precision", *NAMES.values()), "|---|---|---|" + "---:|" * 4]
    for cell, sides in results["cells"].items():
        data, shape, precision = cell.split("/")
        lines.append(row(DATA[data], MODEL[shape], precision, *(spread(of_runs(sides, s, startup)) for s in NAMES)))
    return lines


def trials(results: dict) -> list[str]:
    about = results["about"]
    lines = [row("model", "setting", "training pairs/s", "reference pairs/s", "peak MiB"), "|---|---|---:|---:|---:|"]
    for shape, found in results["trials"].items():
        for name, run in found.items():
            if "error" in run:
                lines.append(row(MODEL[shape], name.strip(), f"fails: `{run['error'].replace('|', ' ')}`", "", ""))
                continue
            seconds = statistics.median(run["seconds"][about["warm_up"] :])
            note = " (it warns that it is off)" if "warning" in run else ""
            speed = f"{about['batch'][shape] / seconds:.1f}"
            lines.append(
                row(MODEL[shape], name.strip() + note, speed, f"{reference_rate(run):.1f}", f"{peak(run):,.0f}")
            )
    return lines


def agreement(results: dict) -> list[str]:
    lines = [
        row("data", "model", "precision", "steps", "largest relative difference of a loss"),
        "|---|---|---|---:|---:|",
    ]
    for cell, worst in differences(results).items():
        data, shape, precision = cell.split("/")
        steps = max((len(runs[0]["losses"]) for runs in results["cells"][cell].values()), default=0)
        lines.append(row(DATA[data], MODEL[shape], precision, str(steps), f"{worst:.1e}"))
    return lines


def write_results(output: Path, results: dict) -> None:
    """against_trl.json, .md and .svg."""
    about = results["about"]
    some = [
        runs[0]["versions"] for sides in results["cells"].values() for side, runs in sides.items() if side != "alignzoo"
    ]
    versions = some[0] if some else {}
    best = {shape: ", ".join(f"`{k}={v}`" for k, v in found.items()) for shape, found in about["best"].items()}
    lines = [
        "# Speed and memory against TRL", "",
        "Command: `python benchmarks/against_trl.py --trl-python PYTHON` "
        f"({', '.join(f'{key} {value}' for key, value in versions.items())}, alignzoo {about['alignzoo']}; "
        f"{about['machine']}, {about['cores']} cores, {about['threads']} threads, nothing else running).", "",
        f"Rows: {about['source']}, spread over all files, at most 1,024 tokens a sequence; `long prompts` are random words, "
        "prompts of 600 to 900 tokens and completions of 40 to 80. The Pythia-70M shape (vocabulary 50,304, 6 layers of 512) "
        f"takes {about['batch']['pythia']} pairs a step, the Llama (vocabulary 8,192, 4 layers of 256) "
        f"{about['batch']['llama']}; weights are random. DPO, AdamW, a constant rate, clipping at 1: same pairs, same order, same "
        "token ids on both sides. bfloat16 is autocast on both. alignzoo is at its defaults. TRL's best are the fastest of the "
        f"trials below ({'; '.join(f'{MODEL[shape]}: {text}' for shape, text in best.items())}), with glibc told to keep freed "
        "memory, as alignzoo does by itself.", "",
        "Medians, with the range over timed steps (after one for warming up) and repeats, the sides taking turns; a ratio is of "
        "the same step. A step is from its first micro-batch to the end of the optimizer's; TRL's collating is outside of it, "
        "alignzoo's laying of the forest within.", "",
        "## Training", "", *training(results), "",
        "## Reference pass", "",
        "TRL's `precompute_ref_log_probs` with the best settings (at its defaults: see the trials), its caching included on both "
        "sides. alignzoo's has a few seconds at most to measure here. A second objective on the same data costs it nothing; what TRL "
        "finds again of its own is in whole_comparison.md.", "",
        *references(results), "",
        "## Peak memory", "",
        "The most resident memory of the process, and in brackets what of it is over that after the imports.", "",
        *memory(results), "",
        "## Start-up", "",
        "Seconds from the start of the process to its first step, without the reference pass. alignzoo's holds the reading and "
        "tokenizing of the rows, the check of the layout and the evaluation of two held-out pairs; TRL was given the token ids.", "",
        *startups(results), "",
        "## What was tried for TRL", "",
        "HH, float32, the reference computed before.", "",
        *trials(results), "",
        "## Agreement", "", *agreement(results),
    ]  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    (output / "against_trl.md").write_text("\n".join(lines) + "\n")
    (output / "against_trl.json").write_text(json.dumps(results, indent=1) + "\n")
    draw(output / "against_trl.svg", results)


def draw(path: Path, results: dict) -> None:
    """How many times TRL's pairs/s, for every cell: training against the defaults and the best, and the reference pass."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "alignzoo"  # the same bytes for the same figures
    from matplotlib import pyplot

    cells = [cell for cell, sides in results["cells"].items() if len(sides) == len(NAMES)]
    if not cells:
        return
    skip = results["about"]["warm_up"]
    bars = {
        "training, TRL's defaults": ("#1b6ca8", lambda sides: ratios(sides, "defaults", skip)),
        "training, TRL's best, reference in the step": ("#59a5d8", lambda sides: ratios(sides, "best", skip)),
        "training, TRL's best, reference before": ("#b6d7ee", lambda sides: ratios(sides, "before", skip)),
        "reference pass, TRL's best": ("#e0a030", lambda sides: [over(*(of_runs(sides, s, reference_rate)
                                                                       for s in ("alignzoo", "before")))]),
    }  # fmt: skip
    figure, axes = pyplot.subplots(figsize=(8, 0.62 * len(cells) + 1.4), layout="constrained")
    for n, (label, (color, what)) in enumerate(bars.items()):
        places = [i + (n - 1.5) * 0.2 for i in range(len(cells))]
        found = [statistics.median(what(results["cells"][cell]) or [0.0]) for cell in cells]
        drawn = axes.barh(places, found, 0.18, color=color, label=label)
        axes.bar_label(drawn, [f"{value:.1f}" if value else "" for value in found], padding=2, fontsize=7)
    names = [cell.split("/") for cell in cells]
    axes.set_yticks(range(len(cells)), [f"{DATA[a]}, {MODEL[b]}, {c}" for a, b, c in names], fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("times TRL's pairs per second")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None})

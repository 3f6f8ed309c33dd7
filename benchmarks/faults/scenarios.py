"""The commands that are killed, and the files that must come out the same to the byte."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stage import Finished, Workplace

SIZE = ["--with", "recipes/scale/smallest.yaml"]
DATA = ["data.max_train_rows=32", "data.held_out_rows=8"]
STEPS = [
    "train.batch_size=8", "train.max_steps=4", "train.checkpoint_every=1", "eval.every=2", "eval.replies.num_prompts=1",
    "eval.replies.max_new_tokens=4",
]  # fmt: skip
QUIET = ["reporters=[]"]
"""Drawing a page takes longer than such a run; the SFT scenario draws one."""
DPO = ["recipes/dpo_hh.yaml", *SIZE, *DATA, *STEPS, *QUIET]
COMPARE = [
    "recipes/dpo_hh.yaml", "recipes/ipo_hh.yaml", *SIZE, "--seeds", "1", "--samples", "2", "--sample-tokens", "4",
    "--judge", "toy", *(word for value in [*DATA, *STEPS, *QUIET] for word in ("--set", value)),
]  # fmt: skip
ONLINE = [
    "recipes/online/dpo_hh.yaml", *SIZE, *DATA, *STEPS, *QUIET, "train.batch_size=4", "rollout.prompts=8", "rollout.epochs=1",
    "rollout.completions=2", "rollout.max_new_tokens=8", "rollout.max_attempts=2", "rollout.kl_rows=4",
    "rollout.held_out_prompts=4", "rollout.rewards=[{name: regex, pattern: w}]",
]  # fmt: skip
"""Two rollouts of two updates each, and second attempts at them: some prompts have two draws with a w, or none."""
IGNORED = (
    "timings.jsonl",
    "evaluation_times.jsonl",
    "summary.json",
    "report.html",
    "results.json",
    "started.txt",
    ".lock",
)
"""Files that hold seconds, dates or paths."""
DRAWN = (".png", ".svg", ".csv", ".md", ".html")
"""Drawn from table.json by the same command."""


def artifacts(place: Workplace) -> dict[str, bytes]:
    """Every file under `runs` that must be reproducible: policies, records, evaluations, verdicts, tables."""
    found = {}
    for path in sorted(place.runs.rglob("*")):
        parts = path.relative_to(place.runs).parts
        if not path.is_file() or parts[1:2] == ("checkpoints",) or path.name in IGNORED or path.suffix in DRAWN:
            continue
        if not any(part.startswith(".") for part in parts):
            raw = path.read_bytes()
            found["/".join(parts)] = _without_costs(raw) if path.name == "table.json" else _without_paths(raw, place)
    return found


def _without_paths(raw: bytes, place: Workplace) -> bytes:
    """Adapters name the folder of their base."""
    return raw.replace(str(place.root).encode(), b"ROOT")


def _without_costs(raw: bytes) -> bytes:
    table = json.loads(raw)
    costs = {column["key"] for column in table["columns"] if column["group"] == "cost"}
    for row in table["rows"]:
        row["figures"] = {key: value for key, value in row["figures"].items() if key not in costs}
        row["points"] = []
    return json.dumps({key: table[key] for key in ("columns", "rows")}).encode()


def scores(place: Workplace) -> dict[str, bytes]:
    """The reference's log-probs of each sequence, whatever shards they are in."""
    from alignzoo.reference.cache import read_shard

    found: dict[str, bytes] = {}
    for path in sorted(place.cache.glob("reference/*/*.safetensors")):
        shard = read_shard(path)
        for i, key in enumerate(shard.keys if shard else ()):
            found[f"scores of {key.tobytes().hex()}"] = shard.log_probs[
                shard.offsets[i] : shard.offsets[i + 1]
            ].tobytes()
    return found


def small_shards() -> None:
    """In a child: a shard of the reference cache for every two rows or so, so that a pass has many."""
    from alignzoo.reference import scores as module

    module.FLUSH_SLOTS = 100


def nothing() -> None:
    """Inject nothing."""


@dataclass
class Scenario:
    """A command, what was done before it, and the operations on the disk at which it is killed."""

    name: str
    arguments: Sequence[str]
    command: str = "run"
    below: str = ""
    """Another scenario, whose runs are finished when this one starts. Neither tokens nor reference are."""
    under: str = ""
    """Only operations on paths with this in them count."""
    trained: bool = False
    """At each operation: the runs are trained too, and only what follows is left."""
    inject: Callable[[], None] = nothing
    want: dict[str, bytes] = field(default_factory=dict)
    whole: Workplace | None = None

    def start_of(self, place: Workplace, trained: bool = False) -> None:
        """Empty the place, and copy what was done before into it."""
        shutil.rmtree(place.root, ignore_errors=True)
        place.root.mkdir(parents=True)
        before = self if trained else SCENARIOS.get(self.below)
        if before is not None and before.whole is not None:
            shutil.copytree(before.whole.runs, place.runs)
        if trained:
            for path in [*place.runs.glob("compare-*"), *place.runs.glob("*/evaluations")]:
                shutil.rmtree(path)

    def result(self, place: Workplace) -> dict[str, bytes]:
        """Everything that is compared at the end."""
        return artifacts(place) | (scores(place) if self.inject is small_shards else {})

    def place(self, root: Path) -> Workplace:
        """A workplace of this scenario."""
        return Workplace(root, list(self.arguments))

    def run(self, place: Workplace, inject: Callable[[], object] = nothing) -> Finished:
        """Run the command in a place, to its end."""
        return place.run(inject=self.with_own(inject), command=self.command)

    def with_own(self, inject: Callable[[], object]) -> Callable[[], None]:
        """The scenario's own injection, then another one."""

        def both() -> None:
            self.inject()
            inject()

        return both


SCENARIOS = {
    one.name: one
    for one in (
        Scenario("SFT", ["recipes/sft_hh.yaml", *SIZE, *DATA]),
        Scenario("DPO", DPO, below="SFT"),
        Scenario("LoRA", [*DPO, "model.lora={r: 4}"], below="SFT"),
        Scenario(
            "reference pass",
            [*DPO, "train.micro_batch_tokens=100"],
            below="SFT",
            under="cache/reference",
            inject=small_shards,
        ),
        Scenario("online", ONLINE, below="SFT"),
        Scenario("compare", COMPARE, "compare", below="SFT", trained=True),
    )
}


def prepared(names: Sequence[str], root: Path) -> list[Scenario]:
    """Run the scenarios and those below them once, with nothing injected; return the named ones."""
    needed = [word for name in names for word in (SCENARIOS[name].below, name) if word]
    for name in dict.fromkeys(needed):
        one = SCENARIOS[name]
        one.whole = one.place(root / f"whole {name}")
        one.start_of(one.whole)
        finished = one.run(one.whole)
        assert finished.code == 0, finished.err
        one.want = one.result(one.whole)
    return [SCENARIOS[name] for name in names]

"""A whole run, top to bottom: recipe -> data -> trees -> reference -> steps -> evaluation -> run folder."""

from __future__ import annotations

import copy
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.artifacts import atomic_folder
from alignzoo.core.console import Screen
from alignzoo.core.distributed.gather import full_state_dict
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.core.files import translate_os_errors
from alignzoo.core.memory import reset_peak_memory, tune_malloc
from alignzoo.core.paths import cache_root, runs_root
from alignzoo.core.signals import GracefulShutdown
from alignzoo.data.row_reader import RowReader
from alignzoo.data.statistics import data_warnings, tokenization_notes
from alignzoo.data.token_store import TokenizedDataset, TokenStore
from alignzoo.data.tokenize import TokenizedRows
from alignzoo.evaluation.judging import run_judge
from alignzoo.evaluation.samples import choose_reply_rows, reply_records
from alignzoo.models.adapters import add_adapters, has_adapters
from alignzoo.models.compile import compiled_layers, disable_tf32
from alignzoo.models.fingerprint import num_trainable_parameters, weights_fingerprint
from alignzoo.models.generation import generate_replies
from alignzoo.models.loading import load_policy, use_gradient_checkpointing
from alignzoo.models.tokenizers import load_tokenizer
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.resolved import Resolved
from alignzoo.reference.scores import ReferenceScores, cache_folder, score_reference, spot_check
from alignzoo.scoring.batches import BatchBuilder
from alignzoo.scoring.exactness import Check, SpotCheck
from alignzoo.scoring.layout import Layout, choose_layout
from alignzoo.scoring.scorer import Scorer
from alignzoo.training import checkpoint
from alignzoo.training.export import BASE, full_weights_policy
from alignzoo.training.fsdp import shard_or_move
from alignzoo.training.loop import Training, watch_steps
from alignzoo.training.master_weights import memory_words
from alignzoo.training.preflight import check_enough_rows, check_positions, no_router_loss, preflight
from alignzoo.training.reporting import Reporting
from alignzoo.training.run_folder import RunFolder
from alignzoo.training.schedule import make_optimizer, total_steps
from alignzoo.training.step import Engine
from alignzoo.training.summary import FinishedRun, summarize
from alignzoo.training.zero import check_zero, wrap_with_zero


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: its folder, and `summary.json` as a dictionary."""

    folder: Path
    summary: dict[str, Any]

    @property
    def policy(self) -> Path:
        """The trained policy and its tokenizer, for `AutoModelForCausalLM.from_pretrained`."""
        return self.folder / "policy"


def run(
    recipe: str | Path,
    overrides: Mapping[str, Any] | Sequence[str] = (),
    overlays: Sequence[str | Path] = (),
    *,
    fresh: bool = False,
    quiet: bool = True,
) -> RunResult:
    """Run a recipe, and first those that it needs. A finished run is returned, a stopped one goes on.

    `overrides` are `{"objective.beta": 0.2}` or `["objective.beta=0.2"]`; `fresh` does the run again from its start.
    Raises UserError for a mistake in what was asked, RunFailed when the run could not go on.
    """
    return run_resolved(load_recipe(recipe, overrides, overlays), fresh=fresh, screen=Screen(quiet))


def folder_of(resolved: Resolved) -> RunFolder:
    """Where this recipe's run is or will be: the same recipe, data and start always give the same folder."""
    return RunFolder(runs_root() / f"{resolved.recipe.name}-{resolved.fingerprint[:8]}")


def run_resolved(resolved: Resolved, *, fresh: bool = False, wait: bool = False, screen: Screen) -> RunResult:
    """`run` for a recipe that has been read. `wait`: when another process is working on it, for what that one makes.

    Of several processes of one job all call it, and all get the result or raise the same error.
    """
    resolved = resolved.reread()
    ranks = Ranks(device_of(resolved.recipe.train.device))
    with ranks.together():
        return _run(resolved, fresh, wait, screen if ranks.main else Screen(quiet=True), ranks)


def _run(resolved: Resolved, fresh: bool, wait: bool, screen: Screen, ranks: Ranks) -> RunResult:
    folder = RunFolder(folder_of(resolved).path, writes=ranks.main)
    if fresh or ranks.broadcast_from_main(folder.summary) is None:
        preflight(resolved)
    for need in resolved.needs.values():
        run_resolved(need, wait=wait, screen=screen)
    if fresh and folder.writes:
        with folder.held(wait):
            _clear(folder)
    summary = ranks.broadcast_from_main(folder.summary)
    if summary is None:
        with folder.held(wait):
            summary = ranks.broadcast_from_main(folder.summary)  # of the process that was waited for
            if summary is None:
                start = ranks.main_process_first(lambda: start_weights(resolved, screen))
                return RunResult(folder.path, Run(resolved, folder, start, screen, ranks).whole())
    screen.info(f"{resolved.recipe.name}: done before, in {folder.path}")
    folder.report_late(Reporting(resolved.recipe.reporters, folder.path, screen).finish)
    return RunResult(folder.path, summary)


def start_weights(resolved: Resolved, screen: Screen) -> Path | None:
    """The weights that a run starts from: whole ones of the finished run before it, or None for its own source's."""
    return full_weights_policy(folder_of(resolved.start), screen) if resolved.start else None


class Run:
    """One run of one recipe in one folder."""

    def __init__(self, resolved: Resolved, folder: RunFolder, start: Path | None, screen: Screen, ranks: Ranks) -> None:
        self.resolved, self.recipe, self.folder, self.start = resolved, resolved.recipe, folder, start
        self.screen, self.ranks = screen, ranks
        disable_tf32()
        tune_malloc()
        reset_peak_memory(self.ranks.device)
        self.stopping = GracefulShutdown()
        if ranks.count > 1:
            self.stopping.agree = lambda asked: max(ranks.all_gather(asked))
        self.reporting = Reporting(self.recipe.reporters if ranks.main else (), folder.path, screen)

    def whole(self) -> dict[str, Any]:
        """Do it all, or what is left of it, and return the summary. Raises Stopped after a signal."""
        before = sys.float_info.min / 2 == 0
        torch.set_flush_denormal(True)  # a pair that is learned has gradients so small that a CPU is ten times slower
        try:
            with self.stopping:
                return self._whole()
        finally:
            torch.set_flush_denormal(before)  # the rest of the process reckons as it did

    def _whole(self) -> dict[str, Any]:
        recipe = self.recipe
        needs = self.resolved.needs
        places = {key: f"../{folder_of(need).path.name}/recipe.yaml" for key, need in needs.items()}
        self.folder.write_text("recipe.yaml", self.resolved.to_yaml(places))
        self.ranks.need_shared(self.folder.path)
        tokenizer, data = self._data()
        train, held_out, report = data.train, data.held_out, data.report
        self.folder.write_json("data.json", report)
        check_enough_rows(train, held_out, recipe.train.batch_size)
        head = recipe.objective.head
        model = load_policy(recipe.model, tokenizer, recipe.seed, self.start, head)
        check_positions(model, train, held_out)
        no_router_loss(model, recipe.train.ignore_router_loss)
        check_zero(model, self.ranks)
        scorer = Scorer(model, precision=recipe.train.precision)
        shard_or_move(scorer, self.ranks)
        layout = choose_layout(scorer, train.trees, recipe.train.layout)
        steps = total_steps(recipe.train, len(train.trees))
        self._announce(report, model, layout, steps)
        weights = weights_fingerprint(model)
        references, exact = self._references(scorer, train, held_out)
        before = self._answers(model, tokenizer, held_out)
        self._adapt(model, tokenizer)
        live = self._live(scorer, tokenizer)
        learning = BatchBuilder(recipe.objective, train.trees, references[0], live, recipe.seed)
        measuring = BatchBuilder(
            recipe.objective, held_out.trees, references[1], live, recipe.seed, recipe.eval.metrics
        )
        self.stopping.doing = "stopped before the first step; the same command goes on"
        optimizer = make_optimizer(recipe.train.optimizer, model, recipe.train.master_weights)
        if words := memory_words([one for one in model.parameters() if one.requires_grad], recipe.train.master_weights):
            self.screen.info(words)
        optimizer = wrap_with_zero(optimizer, scorer, self.ranks, recipe.train.max_grad_norm, self.screen.info)
        engine = Engine(learning, recipe.train, self.ranks, scorer, optimizer, steps, recipe.seed)
        engine.watch = watch_steps(engine)
        told = (self.stopping, self.reporting, self.screen)
        training = Training(recipe, self.folder, engine, measuring, tokenizer, *told, exact)
        training.resume()
        if recipe.train.gradient_checkpointing:
            use_gradient_checkpointing(model)
        self.reporting.start(self.resolved.plain, training.done)
        with training.kept():
            with compiled_layers(model, recipe.train.compile, self.ranks.device):
                last = training.whole()
            self._export(model, tokenizer)
            judges = self._samples(model, tokenizer, held_out, before)
            trained = FinishedRun(
                model, weights, weights_fingerprint(model), layout, references, last, judges, steps, self.ranks
            )
            summary = self.ranks.broadcast_from_main(lambda: summarize(self.resolved, self.folder, report, trained))
            self.folder.finish(summary, self.reporting.finish)
        return summary

    def _data(self) -> tuple[PreTrainedTokenizerBase, TokenizedDataset]:
        """The tokenizer and the tokens: rows are read only where one of the two has to be made of them."""
        self.stopping.doing = "stopped while reading and tokenizing the data; the same command begins with that again"
        unread = RowReader(self.recipe.data)
        tokenizer = load_tokenizer(self.recipe.model, unread, self.start)
        store = TokenStore(self.resolved, tokenizer, self.ranks.broadcast_from_main(self.folder.first_day))
        return tokenizer, self.ranks.main_process_first(lambda: store.get(unread, self.screen.info))

    def _announce(self, report: dict[str, Any], model: PreTrainedModel, layout: Layout, steps: int) -> None:
        recipe = self.recipe
        start = f"the policy of {self.resolved.start.recipe.name}" if self.resolved.start else "its own start"
        size = sum(parameter.numel() for parameter in model.parameters())
        self.screen.info(
            f"{recipe.name}: {recipe.objective} from {start} ({size / 1e6:.2f} M parameters), "
            f"{self.ranks.device} {recipe.train.precision}"
        )
        skipped = ", ".join(f"{count} {reason}" for reason, count in report["skipped_by_reason"].items())
        self.screen.info(
            f"data: {report['train']:,} training and {report['held_out']:,} held-out rows of {report['read']:,} read"
            + (f"; skipped: {skipped}" if skipped else "")
            + data_warnings(report)
        )
        for line in tokenization_notes(report, recipe.tokens.thinking):
            self.screen.info(f"data: {line}")
        if getattr(recipe.data, "path", recipe.data.name) == "toy":
            self.screen.info(
                "this is the embedded sample; real HH: data.path=FILE_OR_FOLDER, or --with scale/pythia-2.8b.yaml"
            )
        self.screen.info(f"layout: {layout.used} ({layout.reason}); {steps:,} steps of {recipe.train.batch_size} rows")

    def _references(
        self, scorer: Scorer, train: TokenizedRows, held_out: TokenizedRows
    ) -> tuple[list[ReferenceScores | None], list[Check]]:
        """Of the training and of the held-out rows; the latter also where a metric alone asks for it. And how far they
        are from the model's own forward."""
        self.stopping.doing = "stopped in the reference pass; what is scored is kept, and the same command goes on"
        recipe, cached = self.recipe, ("sequence", "token")
        asked = recipe.objective.reference
        measured = asked == "none" and any(metric.reference in cached for metric in recipe.eval.metrics)
        folder = cache_folder(cache_root(), scorer, self.resolved.source_code) if asked in cached or measured else None
        budget = 2 * recipe.train.micro_batch_tokens  # no activations are kept for a backward
        spot = None if self.ranks.sharded else SpotCheck(scorer)
        found = [
            score_reference(scorer, part.trees, folder, budget, self.screen, ranks=self.ranks, spot=spot)
            if wanted and folder
            else None
            for part, wanted in ((train, asked in cached), (held_out, asked in cached or measured))
        ]
        return found, spot_check(spot, found, self.ranks)

    def _adapt(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        """Adapters, where the recipe trains them: from here on. The start was scored without, as any run's."""
        recipe, lora = self.recipe, self.recipe.model.lora
        if lora is None:
            return
        if self.ranks.sharded:
            raise UserError(
                "adapters are put in after the reference pass, and shards are cut before it", where="model.lora",
                expected="whole copies of the model in all processes (no FSDP), or training without adapters",
            )  # fmt: skip
        base, revision = recipe.model.origin or (None, None)
        if self.start is not None:
            base = str(self.start.resolve())
        if base is None or recipe.objective.head == "scalar":  # it is nowhere else: random weights, or a new head
            saved = self.folder.path / BASE
            if self.folder.writes and not saved.is_dir():
                weights = full_state_dict(model)
                with atomic_folder(saved, sum(tensor.nbytes for tensor in weights.values())) as temporary:
                    checkpoint.export(temporary, model, tokenizer, weights)
            base, revision = str(saved.resolve()), None
        add_adapters(model, lora, recipe.seed, base, revision)
        size, ours = sum(parameter.numel() for parameter in model.parameters()), num_trainable_parameters(model)
        self.screen.info(f"adapters: rank {lora.r}, {ours / 1e6:.3g} M of {size / 1e6:.3g} M parameters are trained")

    def _live(self, scorer: Scorer, tokenizer: PreTrainedTokenizerBase) -> Scorer | None:
        """The start, or a copy of it, that runs beside the policy, whole in each process, for objectives that need
        whole distributions of the reference, or one that moves."""
        if self.recipe.objective.reference not in ("live", "moving"):
            return None
        self.screen.info(f"reference: runs beside the policy ({self.recipe.objective.reference})")
        recipe = self.recipe
        if has_adapters(scorer.model):  # the start is there already, under the adapters
            live = Scorer(scorer.model, scorer.layout, scorer.precision)
            live.base_alone = True
        else:
            copied = (
                load_policy(recipe.model, tokenizer, recipe.seed, self.start, recipe.objective.head)
                if self.ranks.sharded else copy.deepcopy(scorer.model)
            )  # fmt: skip
            live = Scorer(copied.requires_grad_(False), scorer.layout, scorer.precision).to(self.ranks.device)
        live.whole_head, live.flex, live.alone = scorer.whole_head, scorer.flex, scorer.alone
        return live

    def _answers(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: TokenizedRows
    ) -> list[str]:
        """Greedy answers to some held-out prompts; a reward model gives none."""
        if self.recipe.objective.head == "scalar":
            return []
        most, prompts = self.recipe.eval.replies.max_new_tokens, self._prompts(held_out)
        return self.ranks.alike(
            lambda: [
                reply.text
                for reply in generate_replies(model, tokenizer, prompts, temperature=0, max_new_tokens=most, seed=0)
            ]
        )

    def _prompts(self, held_out: TokenizedRows) -> list[Any]:
        return [held_out.trees[i].prompt for i in choose_reply_rows(held_out, self.recipe.eval.replies.num_prompts)]

    def _export(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        weights = checkpoint.weights_of(model)
        if self.folder.writes:
            needs = sum(tensor.nbytes for tensor in weights.values())
            with atomic_folder(self.folder.policy, needs, over=True) as temporary:
                checkpoint.export(temporary, model, tokenizer, weights)

    def _samples(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, held_out: TokenizedRows, before: list[str]
    ) -> dict[str, Any]:
        """Write samples.jsonl, and return what the judges say of it."""
        after = self._answers(model, tokenizer, held_out)
        if not after:
            return {}
        wanted = self.recipe.eval.replies.num_prompts
        lines = reply_records(held_out, wanted, tokenizer, before, after)
        self.folder.write_lines("samples.jsonl", lines)
        rows = [held_out.rows[i] for i in choose_reply_rows(held_out, wanted)]
        judges = self.recipe.eval.judges
        return self.ranks.broadcast_from_main(
            lambda: {judge.name: run_judge(judge, rows, lines, self.screen) for judge in judges}
        )


def device_of(asked: str) -> str:
    """`cpu` or `cuda`, with auto decided."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU is there", where="train.device", expected="cpu, or auto")
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _clear(folder: RunFolder) -> None:
    """Remove a run: first what would make the rest of it count, should this process be killed in the middle."""
    order = {"summary.json": 0, "checkpoints": 1}
    for path in sorted(folder.path.iterdir(), key=lambda path: order.get(path.name, 2)):
        if path.name != ".lock":
            with translate_os_errors(path):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

"""Open the data and the model of a recipe, ready to score.

These are tokenizer, token trees, placed model, layout and reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignzoo.core.console import Screen
from alignzoo.core.distributed.process_group import Ranks
from alignzoo.core.errors import UserError
from alignzoo.core.paths import cache_root
from alignzoo.data.dataset import tokenized_dataset
from alignzoo.data.row_reader import RowReader
from alignzoo.data.token_store import TokenizedDataset
from alignzoo.data.trees import Trees
from alignzoo.interfaces.model_source import ModelSource
from alignzoo.models.loading import fit_policy, load_policy, load_trained
from alignzoo.models.tokenizers import load_tokenizer
from alignzoo.recipe.resolved import Resolved
from alignzoo.reference.scores import ReferenceScores, cache_folder, score_reference
from alignzoo.scoring.exactness import SpotCheck
from alignzoo.scoring.forest import LAYOUTS
from alignzoo.scoring.layout import Layout, choose_layout
from alignzoo.scoring.scorer import Scorer, language_head
from alignzoo.training.fsdp import shard_or_move


def device_of(requested: str) -> str:
    """Resolve `train.device` (`auto`, `cpu` or `cuda`) to `cpu` or `cuda`.

    Raises:
        UserError: CUDA is requested and not available.
    """
    available = torch.cuda.is_available()
    if requested == "cuda" and not available:
        raise UserError("no CUDA GPU is available", where="train.device", expected="cpu, or auto")
    return ("cuda" if available else "cpu") if requested == "auto" else requested


def open_data(
    resolved: Resolved, start: Path | None, first_day: date | None, screen: Screen, ranks: Ranks
) -> tuple[PreTrainedTokenizerBase, TokenizedDataset]:
    """Load the tokenizer and the token trees of a recipe.

    Rows are read only where one of the two does not exist yet.

    Args:
        resolved: The recipe.
        start: The policy folder of the run that this one starts from, or None.
        first_day: The date that a chat template may write, that of the run's first start; None for today.
        screen: Receives progress.
        ranks: The processes of the job; the main one tokenizes, the others read its files.
    """
    reader = RowReader(resolved.recipe.data)
    tokenizer = load_tokenizer(resolved.recipe.model, reader, start)
    return tokenizer, ranks.main_process_first(
        lambda: tokenized_dataset(resolved, tokenizer, screen.info, first_day, reader)
    )


def open_policy(
    resolved: Resolved,
    tokenizer: PreTrainedTokenizerBase,
    start: Path | None,
    trees: Trees,
    ranks: Ranks,
    *,
    trained: Path | None = None,
    check: Callable[[PreTrainedModel], None] = lambda model: None,
    model: PreTrainedModel | None = None,
) -> tuple[Scorer, Layout]:
    """Load a policy, place or shard it, and choose the fastest exact layout for `trees`.

    Args:
        resolved: The recipe.
        tokenizer: The recipe's tokenizer.
        start: The policy folder of the run that this one starts from, or None.
        trees: The rows that the layout is chosen and checked on.
        ranks: The processes of the job.
        trained: The policy folder of a finished run, or None for the policy before its first step.
        check: Called with the loaded model before it is placed; raises UserError for a model that can't be used.
        model: The policy before its first step, where it is in memory.
    """
    scorer = open_scorer(resolved, tokenizer, start, ranks, trained=trained, check=check, model=model)
    return scorer, choose_layout(scorer, trees, resolved.recipe.train.layout)


def open_scorer(
    resolved: Resolved,
    tokenizer: PreTrainedTokenizerBase,
    start: Path | None,
    ranks: Ranks,
    *,
    trained: Path | None = None,
    check: Callable[[PreTrainedModel], None] = lambda model: None,
    like: Scorer | None = None,
    model: PreTrainedModel | None = None,
) -> Scorer:
    """Load a policy and place or shard it, as `open_policy` does.

    The layout is that of `like` where one is given.
    """
    recipe = resolved.recipe
    source = (recipe.model, tokenizer, recipe.seed, start)
    head = recipe.objective.policy_head
    outputs = recipe.objective.outputs
    if model is not None:
        model = fit_policy(model, *source[:-1], head, outputs)
    else:
        model = load_trained(*source, trained, head, outputs) if trained else load_policy(*source, head, outputs)
    check(model)
    if recipe.objective.language_head:
        language_head(model)
    scorer = Scorer(model, precision=recipe.train.precision)
    shard_or_move(scorer, ranks)
    if like is not None:
        copy_layout(like, scorer)
    return scorer


def check_vocabulary(resolved: Resolved, name: str, tokenizer: PreTrainedTokenizerBase, start: Path | None) -> None:
    """Raise UserError if a named reference's tokenizer gives other ids than the policy's."""
    check_same_tokenizer(resolved, resolved.recipe.references[name], f"references.{name}", tokenizer, start)


def check_same_tokenizer(
    resolved: Resolved, source: ModelSource, where: str, tokenizer: PreTrainedTokenizerBase, start: Path | None
) -> None:
    """Raise UserError at the key `where` if a model's token ids are not the policy's."""
    own = load_tokenizer(source, RowReader(resolved.recipe.data), start)
    if (vocabulary := own.get_vocab()) != (theirs := tokenizer.get_vocab()):
        differ = [token for token in vocabulary.keys() | theirs if vocabulary.get(token) != theirs.get(token)]
        raise UserError(
            f"its tokenizer differs from the policy's in {len(differ):,} tokens, such as {min(differ)!r}",
            where=where, expected="a model with the policy's tokenizer",
        )  # fmt: skip


def open_reference(
    resolved: Resolved,
    name: str,
    tokenizer: PreTrainedTokenizerBase,
    start: Path | None,
    trees: Trees,
    ranks: Ranks,
    *,
    whole: bool = False,
) -> Scorer:
    """Load a named reference, place or shard it, and choose its layout.

    Its tokenizer gives the policy's ids: `check_vocabulary` comes before anything is scored in a run.

    Args:
        resolved: The recipe.
        name: The reference's name.
        tokenizer: The policy's tokenizer.
        start: The policy folder of the run that the reference is, or None.
        trees: The rows that the layout is chosen and checked on.
        ranks: The processes of the job.
        whole: Keep all weights in each process.

    Raises:
        UserError: The model can't be loaded.
    """
    recipe = resolved.recipe
    model = load_policy(recipe.references[name], tokenizer, recipe.seed, start).requires_grad_(False)
    scorer = Scorer(model, precision=recipe.train.precision)
    if whole:
        scorer.to(ranks.device)
    else:
        shard_or_move(scorer, ranks)
    choose_layout(scorer, trees, "auto")
    return scorer


def copy_layout(source: Scorer, target: Scorer) -> None:
    """Give a scorer the layout, head and attention kernel that were chosen for another one."""
    target.layout, target.whole_head = source.layout, source.whole_head
    target.flex, target.alone = source.flex, source.alone


def share_layout(trees: Trees, *scorers: Scorer) -> None:
    """Give scorers of the same forests the slowest of their layouts, checked on `trees`."""
    slowest, alone = max((one.layout for one in scorers), key=LAYOUTS.index), any(one.alone for one in scorers)
    for one in scorers:
        if one.layout != slowest:
            choose_layout(one, trees, slowest)
        one.alone = one.alone or alone


def cached_scores(
    resolved: Resolved,
    scorer: Scorer,
    parts: Sequence[Trees],
    screen: Screen,
    ranks: Ranks,
    *,
    label: str = "reference",
    spot: SpotCheck | None = None,
    budget: int = 0,
    source: ModelSource | None = None,
) -> list[ReferenceScores]:
    """Score parts of the data through the score cache.

    Args:
        resolved: The recipe.
        scorer: The model whose log-probs are computed.
        parts: The trees of each part.
        screen: Receives progress.
        ranks: The processes of the job; each scores its share.
        label: The name of the scorer in progress lines.
        spot: Compares a few rows with the model's own forward; created per part by default.
        budget: Token slots of a micro-batch; 0 for twice the recipe's, as no activations are kept for a backward.
        source: What loaded the model; by default the recipe's own source.

    Raises:
        RunFailed: Memory does not suffice for one row, the cache can't be written, or scores are inexact.
    """
    if not parts:
        return []
    folder = cache_folder(cache_root(), scorer, resolved.code_of(source or resolved.recipe.model))
    budget = budget or 2 * resolved.recipe.train.micro_batch_tokens
    return [score_reference(scorer, trees, folder, budget, screen, label, ranks, spot) for trees in parts]

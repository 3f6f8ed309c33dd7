"""Replies of a run in the form that AlpacaEval and Arena-Hard read.

AlpacaEval reads a JSON array of `instruction`, `output`, `generator` and `dataset`. Arena-Hard reads JSON lines:
version 0.1 reads `question_id`, `model_id` and `choices`, as MT-bench does, version 2 `uid`, `model` and `messages`.
A line has both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from alignzoo.core.console import Screen
from alignzoo.core.digests import digest
from alignzoo.core.errors import UserError
from alignzoo.data.formats.records import Records
from alignzoo.data.sources.files import Files
from alignzoo.interfaces.rows import Row, Skipped
from alignzoo.training.generate import Answered, Drawing, draw

Benchmark = Literal["alpaca_eval", "arena_hard"]


class Questions(Records):
    """Questions of Arena-Hard, each a user's message: `prompt`, or the only one of `turns`."""

    name = "arena_hard"

    def row(self, id: str, record: Mapping[str, Any], where: str) -> Row | Skipped:
        """Build a row from one question. Raises UserError as `Records.row`."""
        turns = record.get("turns")
        if "prompt" not in record and isinstance(turns, list | tuple) and turns:
            if len(turns) > 1 or not isinstance(turns[0], Mapping):
                raise UserError(f"{len(turns)} turns", where=where, expected='one, such as [{"content": "..."}]')
            record = {**record, "prompt": turns[0].get("content")}
        return super().row(id, record, where)


def benchmark_text(
    run: Path, prompts: Path, settings: Drawing, benchmark: Benchmark, screen: Screen
) -> tuple[str, int]:
    """Return the text of the file that a benchmark reads, and the number of replies in it.

    Prompts are a user's messages: rendered by the chat template, or without one as a dialogue, as `alignzoo chat` does.
    The model is called by the name of the run's folder.

    Args:
        run: The run folder.
        prompts: For AlpacaEval records with `instruction`, for Arena-Hard with `prompt` or one of `turns`.
        settings: How replies are drawn.
        benchmark: The benchmark.
        screen: Receives progress.

    Raises:
        UserError: As `reply_to_file`; or AlpacaEval gets several replies to a prompt.
    """
    if benchmark == "alpaca_eval" and settings.samples > 1:
        raise UserError("AlpacaEval reads one reply to each instruction", where="--samples", expected="1")
    form = Records() if benchmark == "alpaca_eval" else Questions(prompt=None, instruction="prompt")
    found = draw(run, Files(path=str(prompts), format=form), settings, screen, as_dialogue=True)
    name = run.resolve().name
    if benchmark == "alpaca_eval":
        records = [alpaca_record(one, name, prompts) for one in found]
        return json.dumps(records, indent=2, ensure_ascii=False) + "\n", len(found)
    lines = [arena_record(list(some), name) for _, some in groupby(found, key=lambda one: one.row.id)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), len(found)


def alpaca_record(one: Answered, name: str, prompts: Path) -> dict[str, Any]:
    """Return a reply as AlpacaEval reads it."""
    dataset = one.row.extra.get("dataset", prompts.name.partition(".")[0])
    return {"instruction": one.asked, "output": one.reply.text.strip(), "generator": name, "dataset": dataset}


def arena_record(some: list[Answered], name: str) -> dict[str, Any]:
    """Return the replies to one question as Arena-Hard and MT-bench read them."""
    extra = some[0].row.extra
    own = next((extra[key] for key in ("uid", "question_id") if key in extra), some[0].row.id)
    texts = [one.reply.text.strip() for one in some]
    lengths = [len(one.reply.tokens) for one in some]
    answer = digest([name, own, texts])
    return {
        "question_id": extra.get("question_id", own), "answer_id": answer, "model_id": name,
        "choices": [{"index": n, "turns": [{"content": text, "token_len": length}]}
                    for n, (text, length) in enumerate(zip(texts, lengths, strict=True))],
        "uid": own, "ans_id": answer, "model": name,
        "messages": [{"role": "user", "content": some[0].asked},
                     {"role": "assistant", "content": {"answer": texts[0]}}],
        "metadata": {"token_len": lengths[0]},
    }  # fmt: skip

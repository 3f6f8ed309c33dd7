"""Runs on chats: the recipes of the embedded data, with loss and masks beside transformers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignzoo.data import toy


@pytest.mark.slow
def test_sft_on_conversations_scores_what_transformers_loss_scores(run):
    """The held-out loss of the run against the policy's own loss with labels of -100 outside the assistant's turns."""
    result = run("recipes/sft_messages.yaml", "data.held_out_rows=6")
    tokenizer = AutoTokenizer.from_pretrained(result.policy)
    model = AutoModelForCausalLM.from_pretrained(result.policy)
    assert tokenizer.eos_token == "<|im_end|>"
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assistant, end = "<|im_start|>assistant\n", "<|im_end|>"
    total, count = 0.0, 0
    for record, _ in zip(toy.conversations("test"), range(6), strict=False):
        text = tokenizer.apply_chat_template(record["messages"], tokenize=False)
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = torch.tensor([encoded["input_ids"]]), np.array(encoded["offset_mapping"])
        labels, at = torch.full_like(ids, -100), 0
        while (start := text.find(assistant, at)) >= 0:
            start, at = start + len(assistant), text.find(end, start) + len(end)
            inside = torch.from_numpy((offsets[:, 0] >= start) & (offsets[:, 1] <= at))
            labels[0, inside] = ids[0, inside]
        with torch.no_grad():
            loss = model(ids, labels=labels).loss
        scored = int((labels != -100).sum())
        total, count = total + float(loss) * scored, count + scored
    held_out = [line for line in result_lines(result.folder) if line["kind"] == "eval"][-1]
    assert held_out["loss"] == pytest.approx(total / count, rel=1e-5)


@pytest.mark.slow
def test_dpo_on_tool_calls_runs_and_its_policy_keeps_the_template(run):
    result = run("recipes/dpo_tools.yaml")
    tokenizer = AutoTokenizer.from_pretrained(result.policy)
    record = next(toy.tool_pairs("test"))
    text = tokenizer.apply_chat_template(record["prompt"] + record["chosen"], tools=record["tools"], tokenize=False)
    assert "<tool_call>" in text
    assert "look_up" in text
    lines = (result.folder / "samples.jsonl").read_text().splitlines()
    assert all(json.loads(line)["prompt"].endswith("<|im_start|>assistant\n") for line in lines)


def result_lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

"""The files and commands of docs/tutorial.md, in an empty folder. The models are smaller, so that it takes a minute."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from checkout import ROOT
from jobs import python

PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.M | re.S)
SHORT = "train: {max_steps: 8}\neval: {replies: {num_prompts: 1, max_new_tokens: 8}}"
EPOCHS = re.compile(r"^train: \{epochs: \d+\}", re.M)
"""What the two recipes have in place of `SHORT`."""


@pytest.mark.slow
def test_every_step_works(tmp_path):
    written, output, shortened = [], "", 0
    for found in BLOCK.finditer(PAGE):
        language, text = found.groups()
        before = PAGE[max(0, found.start() - 200) : found.start()].splitlines()[-3:]
        if language in ("python", "yaml", "json") and (names := re.findall(r"`([\w-]+\.\w+)`", " ".join(before))):
            (tmp_path / names[-1]).write_text(EPOCHS.sub(SHORT, text))
            shortened += len(EPOCHS.findall(text))
            written.append(names[-1])
        for line in text.splitlines() if language == "sh" else ():
            words = shlex.split(line, comments=True)
            if words[0] == "pip":
                continue  # the test's own environment has it
            command = words[1:] if words[0] == "python" else ["-m", *words]
            done = python(*command, folder=tmp_path).wait()
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            output += done.stdout
    assert written == ["write_pairs.py", "sft.yaml", "mine.yaml", "prompts.jsonl", "pretrained.yaml"]
    assert shortened == 2
    for words in ("240 ", "objective          dpo(beta=0.1)", "⟦"):
        assert words in output, words
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text().splitlines()]
    assert len({json.dumps(row) for row in rows}) > 200
    (reply,) = (tmp_path / "replies.jsonl").read_text().splitlines()
    assert json.loads(reply)["prompt"] == "What color is Milk?"
    assert (tmp_path / "my-policy" / "model.safetensors").is_file()
    assert len((tmp_path / "scores.jsonl").read_text().splitlines()) == 240

"""Files as people download them: the error for their columns has the line that reads them, and a run trains on them."""

from __future__ import annotations

import csv
import gzip
import json
import re

import pytest
import yaml
from byte_tokenizer import CHATML, byte_tokenizer

import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.data.sources.files import Files
from alignzoo.data.splits import read_rows

ROWS = range(24)
TIDE = {
    "name": "tide",
    "description": "height",
    "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
}


def turn(speaker, text):
    return {"from": speaker, "value": text}


def battles(path) -> None:
    """A spreadsheet of two answers, the better one, and ties."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["question", "response_a", "response_b", "winner"])
        writer.writerows([f"q {n}?", f"one {n}", f"two {n}", ("a", "b", "tie")[n % 3]] for n in ROWS)


def ultrafeedback(path) -> None:
    """A Parquet file of lists of objects."""
    datasets = pytest.importorskip("datasets")
    completions = [
        [{"model": model, "response": f"{model} {n}", "overall_score": (n + 3 * k) % 7, "critique": "x"} for k, model in enumerate("abc")]
        for n in ROWS
    ]  # fmt: skip
    rows = [
        {"source": "s", "instruction": f"q {n}", "completions": own} for n, own in zip(ROWS, completions, strict=True)
    ]
    datasets.Dataset.from_list(rows).to_parquet(str(path))


def preferences(path) -> None:
    """LLaMA-Factory's array of ShareGPT turns with a chosen and a rejected one."""
    rows = [
        {"conversations": [turn("human", f"q {n}")], "chosen": turn("gpt", f"a {n}"), "rejected": turn("gpt", "b")}
        for n in ROWS
    ]
    path.write_text(json.dumps(rows, indent=2))


def calls(path) -> None:
    """LLaMA-Factory's tool calls: functions and calls are JSON text."""
    rows = [
        {"conversations": [turn("human", f"tide {n}?"), turn("function_call", json.dumps({"name": "tide", "arguments": {"at": f"{n}"}})),
                           turn("observation", "3"), turn("gpt", f"{n} m")], "tools": json.dumps([TIDE])}
        for n in ROWS
    ]  # fmt: skip
    path.write_text(json.dumps(rows))


def problems(path) -> None:
    """Questions with answers, compressed."""
    lines = (json.dumps({"question": f"{n} + 1?", "answer": f"#### {n + 1}", "level": n % 5}) for n in ROWS)
    path.write_bytes(gzip.compress("\n".join(lines).encode()))


FILES = {
    "battles.csv": (battles, "dpo", 16),
    "ultrafeedback.parquet": (ultrafeedback, "dpo", 24),
    "dpo_en_demo.json": (preferences, "dpo", 24),
    "glaive_toolcall_en_demo.json": (calls, "sft", 24),
    "problems.jsonl.gz": (problems, "sft", 24),
}
"""Name -> function that writes it, an objective, rows that are used."""


def read(path) -> tuple[Files, int]:
    """The source, with the format of the error's own line if there is an error, and the rows that are used."""
    source = Files(path=str(path), held_out_fraction=0.4)
    try:
        found = read_rows(source)
    except UserError as error:
        line = re.search(r"under data, write (format: \{.*\})", str(error))
        assert line, error
        names = yaml.safe_load(line[1])["format"]
        assert names.pop("name") == "records"
        source = source.model_copy(update={"format": type(source.format)(**names)})
        found = read_rows(source)
    return source, len(found.train) + len(found.held_out)


@pytest.mark.parametrize("name", FILES)
def test_the_line_of_the_error_reads_the_file(tmp_path, name):
    write, _, used = FILES[name]
    write(tmp_path / name)
    assert read(tmp_path / name)[1] == used


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_first_run_trains_on_it(tmp_path, monkeypatch, name):
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    write, objective, _ = FILES[name]
    write(tmp_path / name)
    byte_tokenizer(template=CHATML.replace("message.content", "message.content or ''")).save_pretrained(
        tmp_path / "tokenizer"
    )
    source, _ = read(tmp_path / name)
    config = {
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
    }
    recipe = {
        "objective": objective, "reporters": [], "data": {"name": "files", **source.model_dump(mode="json")},
        "model": {"config": config, "tokenizer": str(tmp_path / "tokenizer")},
        "train": {"batch_size": 4, "max_steps": 1, "optimizer": {"name": "sgd", "learning_rate": 0.1}},
        "eval": {"replies": {"num_prompts": 1, "max_new_tokens": 2}},
    }  # fmt: skip
    (tmp_path / "first.yaml").write_text(yaml.safe_dump(recipe))
    result = alignzoo.run(tmp_path / "first.yaml")
    assert (result.policy / "model.safetensors").is_file()

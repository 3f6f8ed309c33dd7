"""Real files of every kind that a user may have from elsewhere, as small as they can be.

Each place is a folder: what a command needs, and the files that are mutated in it.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import forked

ROOT = Path(__file__).parents[2]
PLACES: dict[str, Callable[[Path], object]] = {}
"""Name -> a function that fills a folder."""
GOOD = "\n\nHuman: Hi {n}?\n\nAssistant: "


def pairs(count: int) -> list[dict[str, Any]]:
    """Preference pairs in HH's format, with a number beside them."""
    texts = [GOOD.format(n=n) for n in range(count)]
    return [
        {"prompt": f"Q{n}", "chosen": text + "yes, gladly", "rejected": text + "no", "margin": n / 2}
        for n, text in enumerate(texts)
    ]


PAIRS = pairs(24)
CHATS = [
    {"prompt": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"Hi {n}?"}],
     "chosen": [{"role": "assistant", "content": "yes, gladly"}], "rejected": [{"role": "assistant", "content": f"no {n}"}]}
    for n in range(24)
]  # fmt: skip
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
SIZES = {
    "hidden_size": 8,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
}
TINY = "{model_type: llama, hidden_size: 8, intermediate_size: 8, num_hidden_layers: 1, num_attention_heads: 2}"
RECIPE = """objective: {objective}
model: {model}
train: {{optimizer: {{name: sgd, learning_rate: 0.1}}, batch_size: 4, max_steps: 2, checkpoint_every: 1}}
eval: {{replies: {{num_prompts: 1, max_new_tokens: 2}}{eval}}}
reporters: []
data: {{name: files, path: {path}, held_out_fraction: 0.3}}
"""


def recipe(path: str, objective: str = "dpo", model: str = "", evaluation: str = "") -> str:
    """A recipe that trains two steps of a tiny model from nothing, or of another one."""
    model = model or f"{{config: {TINY}, tokenizer: {{train: bytes}}}}"
    return RECIPE.format(path=path, objective=objective, model=model, eval=evaluation)


def place(function: Callable[[Path], object]) -> Callable[[Path], object]:
    PLACES[function.__name__] = function
    return function


def build(folder: Path, names: Iterable[str]) -> None:
    """Fill places, in a child: the parent must not start the threads of a library before it forks."""
    for name in names:
        fill, own = PLACES[name], folder / name
        own.mkdir(parents=True)
        pid = os.fork()
        if not pid:
            os.environ |= forked.SETTINGS | {"ALIGNZOO_RUNS": str(own / "runs"), "ALIGNZOO_CACHE": str(own / "cache")}
            os.environ["MPLCONFIGDIR"] = str(folder.parent / "fonts")
            os.chdir(own)
            code = 1
            try:
                fill(own)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"the place {name} could not be filled"


def command(*words: str) -> None:
    """Run `alignzoo WORDS` here."""
    from alignzoo.cli import app

    sys.argv = ["alignzoo", *words]
    assert app._exit_code() == 0, words


def tokenizer(kind: str = "bytes") -> Any:
    """A byte-level, WordPiece or Unigram tokenizer with a chat template."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    end, pad, unknown = "<|endoftext|>", "<|pad|>", "[UNK]"
    texts = [json.dumps(row) for row in (*PAIRS, *CHATS)]
    if kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        made.decoder = decoders.ByteLevel()
        made.post_processor = processors.ByteLevel(trim_offsets=True)
        trainer: Any = trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=[end, pad],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token=unknown))
        made.normalizer = normalizers.BertNormalizer(lowercase=True)
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=[unknown, end, pad], show_progress=False)
    else:
        made = Tokenizer(models.Unigram())
        made.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(" ", "▁")])
        made.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Metaspace(), pre_tokenizers.Split(" ?[^\\s]+", "isolated")]
        )
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(
            vocab_size=200, special_tokens=[unknown, end, pad], unk_token=unknown, show_progress=False
        )
    made.train_from_iterator(texts, trainer)
    if kind != "bytes":
        made.post_processor = processors.TemplateProcessing(
            single=f"{end} $A", special_tokens=[(end, made.token_to_id(end))]
        )
    found = PreTrainedTokenizerFast(tokenizer_object=made, eos_token=end, pad_token=pad, bos_token=end)
    found.chat_template = TEMPLATE
    return found


def save_model(
    folder: Path, architecture: str = "Llama", head: str = "ForCausalLM", words: str = "bytes", **more: Any
) -> None:
    import torch
    import transformers

    own = tokenizer(words)
    config = getattr(transformers, f"{architecture}Config")(
        **SIZES, vocab_size=320, bos_token_id=0, eos_token_id=0, pad_token_id=1, **more
    )
    torch.manual_seed(0)
    getattr(transformers, architecture + head)(config).save_pretrained(
        folder, max_shard_size="8KB" if "sharded" in folder.name else "5GB"
    )
    own.save_pretrained(folder)


@place
def recipes(folder: Path) -> None:
    """The shipped recipes, whose data is a small file."""
    shutil.copytree(ROOT / "recipes", folder / "recipes")
    base = folder / "recipes/bases/hh.yaml"
    base.write_text(base.read_text().replace("path: toy", "path: ../../rows.jsonl"))
    (folder / "rows.jsonl").write_text(lines(pairs(64)))
    (folder / "small.yaml").write_text(recipe("./rows.jsonl"))
    (folder / "mine.py").write_text("raise ValueError('broken')\n")


@place
def model(folder: Path) -> None:
    """Models that a recipe trains, or that judge."""
    (folder / "rows.jsonl").write_text(lines(CHATS))
    (folder / "texts.jsonl").write_text(lines(PAIRS))
    save_model(folder / "llama")
    save_model(
        folder / "sharded",
        words="wordpiece",
        num_key_value_heads=1,
        rope_parameters={"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4, "original_max_position_embeddings": 64},
    )
    save_model(folder / "gemma", "Gemma2", words="unigram", num_key_value_heads=1, head_dim=4, sliding_window=8)
    save_model(folder / "experts", "Mixtral", num_key_value_heads=1, num_local_experts=2)
    save_model(folder / "reward", "Llama", "ForSequenceClassification", num_labels=1)
    for name in ("llama", "sharded", "gemma", "experts"):
        (folder / f"{name}.yaml").write_text(recipe("./rows.jsonl", model=f"{{path: ./{name}}}"))
    (folder / "reward.yaml").write_text(
        recipe("./texts.jsonl", "sft", evaluation=", judges: [{name: classifier, path: ./reward}]")
    )
    for name in ("llama", "sharded", "gemma"):
        (folder / f"own_{name}.yaml").write_text(
            recipe("./rows.jsonl", model=f"{{config: {TINY}, tokenizer: ./{name}}}")
        )


@place
def data(folder: Path) -> None:
    """One set of rows in every format."""
    import datasets
    import pyarrow
    import pyarrow.parquet

    rows = folder / "rows"
    rows.mkdir()
    (rows / "pairs.jsonl").write_text(lines(PAIRS))
    (rows / "pairs.jsonl.gz").write_bytes(gzip.compress(lines(PAIRS).encode(), mtime=0))
    (rows / "pairs.json").write_text(json.dumps(PAIRS, indent=1))
    (rows / "inside.json").write_text(json.dumps({"version": 1, "data": PAIRS}))
    (rows / "pairs.csv").write_text(table(","))
    (rows / "pairs.tsv").write_text(table("\t"))
    with pyarrow.output_stream(str(rows / "pairs.csv.zst"), compression="zstd") as file:
        file.write(table(",").encode())
    mixed = [{**pair, "tags": [{"a": n, "when": None}], "score": n / 3} for n, pair in enumerate(PAIRS)]
    ranked = [{"prompt": f"Q{n}", "completions": ["good", "fair", "bad"], "scores": [3, 2, n / 100]} for n in range(24)]
    labeled = [{"prompt": f"Q{n}", "completion": f"yes {n}", "label": bool(n % 2)} for n in range(24)]
    (rows / "ranked.jsonl").write_text(lines(ranked))
    (rows / "labeled.jsonl").write_text(lines(labeled))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(mixed), rows / "mixed.parquet")
    dated = pyarrow.Table.from_pylist(PAIRS).append_column("day", pyarrow.array(range(24), pyarrow.timestamp("s")))
    pyarrow.parquet.write_table(dated.append_column("cost", pyarrow.array(range(24), pyarrow.decimal128(9, 2))), rows / "plain.parquet", compression="none", use_dictionary=False)  # fmt: skip
    saved = {
        name: pyarrow.Table.from_pylist(mixed) if name == "saved" else dated for name in ("saved", "train", "test")
    }
    made = {
        name: datasets.Dataset(datasets.table.InMemoryTable(rows), fingerprint=name) for name, rows in saved.items()
    }
    made.pop("saved").save_to_disk(rows / "saved")
    datasets.DatasetDict(made).save_to_disk(rows / "splits")
    for path in rows.iterdir():
        objective = "sft" if path.name == "ranked.jsonl" else "kto" if path.name == "labeled.jsonl" else "dpo"
        (folder / f"{path.name}.yaml").write_text(
            recipe(f"./rows/{path.name}", objective if objective != "kto" else "sft")
        )


@place
def runs(folder: Path) -> None:
    """A run, the run that starts from it, one with adapters, two stopped ones, a comparison, and the caches of all."""
    (folder / "rows.jsonl").write_text(lines(PAIRS))
    (folder / "base.yaml").write_text(recipe("./rows.jsonl", "sft"))
    (folder / "after.yaml").write_text(
        recipe("./rows.jsonl", model="{from: ./base.yaml}", evaluation=", judges: [toy]")
    )
    (folder / "lora.yaml").write_text(recipe("./rows.jsonl", model="{from: ./base.yaml, lora: {r: 2}}"))
    (folder / "compare.yaml").write_text(
        "recipes: [base.yaml, after.yaml]\nseeds: 1\nsamples: {prompts: 2, tokens: 2}\njudges: [toy]\n"
    )
    draws = (
        "rollout: {completions: 2, max_new_tokens: 4, held_out_prompts: 2, kl_rows: 2, rewards: [toy], missing: drop}\n"
    )
    (folder / "online.yaml").write_text(recipe("./rows.jsonl", model="{from: ./base.yaml}") + draws)
    command("run", "after.yaml")
    command("run", "lora.yaml")
    command("run", "online.yaml")
    command("compare", "compare.yaml")
    stopped = next(
        path
        for path in (folder / "runs").glob("after-*")
        if (path / "checkpoints").is_dir() and any((path / "checkpoints").iterdir())
    )
    (online,) = (folder / "runs").glob("online-*")
    for own in (stopped, online):
        for name in ("summary.json", "samples.jsonl", "report.html"):
            (own / name).unlink(missing_ok=True)
        shutil.rmtree(own / "policy")
    shutil.rmtree(online / "checkpoints")  # so that its rollouts are read from the first step on


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def table(delimiter: str) -> str:
    import csv

    file = io.StringIO()
    writer = csv.DictWriter(file, list(PAIRS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(PAIRS)
    return file.getvalue()

"""What is tokenized once is not tokenized again, and what comes from the store is what tokenizing would have made."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import yaml
from byte_tokenizer import CHATML, byte_tokenizer
from hh_rows import dialogue, hh_records
from safetensors.numpy import load_file
from zoo import ZOO

import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.core.paths import cache_root
from alignzoo.data import token_store as module
from alignzoo.data.prepare import prepare
from alignzoo.data.row_reader import RowReader
from alignzoo.data.sources.files import Files
from alignzoo.data.splits import read_rows
from alignzoo.data.statistics import data_report
from alignzoo.data.token_store import TokenStore, leftovers, stored, tokenizer_fingerprint
from alignzoo.data.tree_writer import ARRAYS, row_from_json, row_to_json
from alignzoo.data.trees import sequence_keys
from alignzoo.interfaces.rows import Completion, Row
from alignzoo.models.tokenizers import load_tokenizer, pretrained_tokenizer
from alignzoo.recipe.load import load_recipe

ZOO_FILE = Path(sys.modules[ZOO[0].__module__].__file__).parent / "__init__.py"
SMALLEST = "tests/smallest.yaml"

PAIRS = hh_records(30)
ODD = [{"chosen": dialogue(f"q {i}", "a", "so?", f"good {i}"), "rejected": dialogue(f"q {i}", f"b{i}", "what?", "bad")}
       for i in range(30)]  # fmt: skip
SCORED = [{"prompt": f"p {i}", "chosen": f"good {i}", "rejected": "bad", "chosen_score": i, "rejected_score": -0.5,
           "margin": i / 7} for i in range(30)]  # fmt: skip
LABELS = [{"prompt": f"p {i}", "completion": f"answer {i}", "label": bool(i % 2)} for i in range(30)]
LISTS = [{"prompt": f"p {i}", "completions": ["a", f"b {i}", "c"][: 2 + i % 2], "scores": [3, 2.5, -1][: 2 + i % 2]}
         for i in range(30)]  # fmt: skip
CHAT = [{"prompt": [{"role": "user", "content": f"p {i}\u2028\x85"}], "chosen": [{"role": "assistant", "content": "ja"}],
         "rejected": [{"role": "assistant", "content": "nein"}]} for i in range(30)]  # fmt: skip


MIXED = [[PAIRS, LABELS, LISTS][i % 3][i] for i in range(30)]
LATE = PAIRS[:20] + LABELS[:9]


@pytest.fixture
def recipe(tmp_path):
    """A resolved recipe on these records: `recipe("kto", LABELS, tokens={...})`."""

    def make(objective="dpo", records=PAIRS, folder="data", **sections):
        file = tmp_path / folder / "rows.jsonl"
        file.parent.mkdir(exist_ok=True)
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        node = {
            "plugins": [str(ZOO_FILE)], "objective": objective, "model": {"path": "nowhere"}, "reporters": [],
            "tokens": {"max_length": 64, "max_prompt_length": 40},
            "train": {"optimizer": {"name": "sgd", "learning_rate": 1}},
        } | sections  # fmt: skip
        node["data"] = {"name": "files", "path": str(file)} | node.get("data", {})
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(node))
        return load_recipe(path)

    return make


class Counter:
    """Takes the place of `TokenizePipeline`, and counts."""

    def __init__(self, monkeypatch) -> None:
        self.calls, self.real = 0, module.TokenizePipeline
        monkeypatch.setattr(module, "TokenizePipeline", self)

    def __call__(self, *arguments):
        self.calls += 1
        return self.real(*arguments)


@pytest.fixture
def made(monkeypatch, no_fork):
    """Whether a recipe's data was tokenized, or came from the store."""
    counter = Counter(monkeypatch)

    def get(resolved, tokenizer=None) -> bool:
        before = counter.calls
        TokenStore(resolved, tokenizer or byte_tokenizer()).get(RowReader(resolved.recipe.data), lambda line: None)
        return counter.calls > before

    return get


def quiet(line: str) -> None:
    pass


def same(mine, theirs) -> None:
    """The same trees, to the last array."""
    assert mine.ids == theirs.ids
    assert mine.mismatched == theirs.mismatched
    for name in ("tokens", "segments", "trees", "spans", "span_cuts"):
        ours, others = getattr(mine, name), getattr(theirs, name)
        assert ours.dtype == others.dtype
        assert np.array_equal(ours, others)
    assert mine.columns.keys() == theirs.columns.keys()
    for name, column in mine.columns.items():
        assert column.dtype == np.float32
        assert np.array_equal(column, theirs.columns[name], equal_nan=True)


@pytest.mark.parametrize(
    ("objective", "records", "sections"),
    [
        ("dpo", PAIRS, {}),
        ("sft", ODD, {}),
        ("dpo", ODD, {"tokens": {"max_length": 50, "max_prompt_length": 30}}),
        ([{"name": "odpo"}, {"name": "apo_zero_unpaired"}], SCORED, {}),
        ("dpo", PAIRS, {"eval": {"metrics": ["entropy", "normalized_accuracy"]}}),
        ("kto", LABELS, {}),
        ("kto", LISTS, {"data": {"max_train_rows": 11}}),
        ("pl_dpo", LISTS, {}),
        ("dpo", LISTS, {"data": {"pairs": "all"}}),
        ("dpo", CHAT, {}),
        ("dpo", PAIRS, {"tokens": {"max_length": 19, "max_prompt_length": 17, "truncate_prompt": "never"}}),
        ("sft", MIXED, {}),
        ("kto", MIXED, {"data": {"label_noise": 0.5, "max_train_rows": 19}}),
        ("sft", LATE, {"tokens": {"max_length": 19, "max_prompt_length": 18, "truncate_prompt": "never"}}),
        ("dpo", PAIRS, {"data": {"label_noise": 0.5, "held_out_fraction": 0.5, "held_out_rows": 5}}),
    ],
    ids=["pairs", "contexts", "cut", "columns", "metrics", "mismatched", "lists", "ranked", "of lists", "chat", "skips",
         "mixed", "mixed and mismatched", "labels late", "noise"],
)  # fmt: skip
@pytest.mark.parametrize("chunk", [1, 4, 1024])
@pytest.mark.slow
def test_what_comes_from_the_store_is_what_tokenizing_makes(
    request, recipe, monkeypatch, objective, records, sections, chunk
):
    """The oracle has all rows in memory; the store has few, and reads the source twice where it is larger than that."""
    if chunk < 1024:
        request.getfixturevalue("no_fork")
    monkeypatch.setattr("alignzoo.data.tokenize_pipeline.CHUNK", chunk)
    monkeypatch.setattr("alignzoo.data.row_reader.MAX_ROWS_IN_MEMORY", 3 if chunk < 1024 else 1024)
    resolved, tokenizer = recipe(objective, records, **sections), byte_tokenizer(template=CHATML)
    rows = read_rows(resolved.recipe.data)
    train = prepare(rows.train, tokenizer, resolved.recipe)
    held_out = prepare(rows.held_out, tokenizer, resolved.recipe, resolved.recipe.eval.metrics)
    lines = []
    for _ in range(2):
        found = TokenStore(resolved, tokenizer).get(RowReader(resolved.recipe.data), lines.append)
        same(found.train.trees, train.trees)
        same(found.held_out.trees, held_out.trees)
        assert list(found.held_out.rows) == held_out.rows
        assert [tree.id for tree in found.held_out.trees] == [row.id for row in found.held_out.rows]
        report = data_report(rows, train, held_out, resolved.recipe.data)
        assert json.dumps(found.report) == json.dumps(report)
        unused = report["skipped"] + report["left_out"] + report["deduplicated"]
        assert report["read"] + report["further_pairs"] == report["used"] + unused
        assert (report["further_pairs"] > 0) == (resolved.recipe.data.pairs == "all")
        assert found.train.trees.keys.tolist() == sequence_keys(train.trees).tolist()
    n, m = len(train.trees), len(held_out.trees)
    assert lines == [
        f"tokens: tokenizing {len(rows.train)} + {len(rows.held_out)} rows", f"tokens: {n} + {m} rows from the store"
    ]  # fmt: skip


def test_from_the_store_no_row_is_read(recipe, made, monkeypatch):
    assert made(recipe())

    def never(source, split):
        raise AssertionError("rows were read")

    monkeypatch.setattr(Files, "read", never)
    assert not made(recipe("ipo"))


def test_a_source_may_give_numpys_numbers_and_any_mapping():
    row = Row(
        "a", ({"role": "user", "content": "hi"},), (Completion("x", "", {"score": np.float32(0.1)}),), "g", {"m": 1}
    )
    again = row_from_json(json.loads(json.dumps(row_to_json(row))))
    assert again == row
    assert isinstance(again.prompt, tuple)


# --- the key


@pytest.mark.parametrize(
    "change",
    [
        {"objective": {"name": "dpo", "beta": 0.7}},
        {"objective": "ipo"},
        {"objective": "simpo"},
        {"objective": "sft"},
        {"objective": [{"name": "dpo"}, {"name": "sft", "weight": 0.2}]},
        {"seed": 5},
        {"train": {"optimizer": {"name": "adamw", "learning_rate": 3}, "batch_size": 7, "micro_batch_tokens": 99}},
        {"eval": {"metrics": ["normalized_accuracy"], "replies": {"num_prompts": 1}}},
    ],
    ids=str,
)
def test_what_does_not_touch_the_tokens_hits(recipe, made, change):
    assert made(recipe())
    assert not made(recipe(**change))


@pytest.mark.parametrize(
    "change",
    [
        {"tokens": {"max_length": 63, "max_prompt_length": 40}},
        {"tokens": {"max_length": 64, "max_prompt_length": 40, "truncate_prompt": "never"}},
        {"tokens": {"max_length": 64, "max_prompt_length": 40, "chat_template_kwargs": {"enable_thinking": False}}},
        {"tokens": {"max_length": 64, "max_prompt_length": 40, "tools": [{"type": "function"}]}},
        {"data": {"train_on": "last_assistant"}},
        {"data": {"max_train_rows": 9}},
        {"data": {"label_noise": 0.5}},
        {"data": {"label_noise": 0.5, "label_noise_seed": 3}},
        {"data": {"held_out_fraction": 0.4}},
        {"objective": "odpo"},
        {"objective": "bradley_terry_margin"},
        {"objective": [{"name": "dpo"}, {"name": "odpo", "weight": 0.1}]},
        {"objective": "apo_zero_unpaired"},
        {"objective": "kto"},
        {"records": SCORED[:29]},
    ],
    ids=lambda change: str(change)[:60],
)
@pytest.mark.slow
def test_what_touches_the_tokens_misses(recipe, made, change):
    assert made(recipe(records=SCORED))
    assert made(recipe(**{"records": SCORED} | change))


def test_labeled_rows_differ_with_the_kind_of_objective(recipe, made):
    """SFT skips the undesirable ones, which the others learn from."""
    assert made(recipe("sft", LABELS))
    assert made(recipe("apo_zero_unpaired", LABELS))
    assert made(recipe("kto", LABELS)), "which also wants completions of other rows"
    assert not made(recipe({"name": "kto", "beta": 0.9}, LABELS))


def test_lists_differ_with_the_kind_of_objective(recipe, made):
    assert [made(recipe(name, LISTS)) for name in ("dpo", "pl_dpo", "sft", "ipo")] == [True, True, True, False]


def test_another_tokenizer_misses(recipe, made):
    assert made(recipe())
    bos, template, vocabulary = byte_tokenizer(prepends_bos=True), byte_tokenizer(template=CHATML), byte_tokenizer()
    vocabulary.add_tokens(["good"])
    split = byte_tokenizer()
    split.split_special_tokens = True
    assert [made(recipe(), other) for other in (bos, template, vocabulary, split)] == [True] * 4


def test_a_tokenizer_that_was_used_is_the_same_tokenizer():
    used = byte_tokenizer()
    used(["a", "bb"], padding=False, truncation=True, max_length=1)
    assert tokenizer_fingerprint(used) == tokenizer_fingerprint(byte_tokenizer())


def test_a_template_that_writes_the_date_has_a_key_of_its_own_each_day(monkeypatch):
    import datetime

    class Tomorrow(datetime.date):
        @classmethod
        def today(cls):
            return cls(2999, 1, 1)

    dated, plain = byte_tokenizer(template="{{ strftime_now('%d') }}"), byte_tokenizer(template="x")
    before = [tokenizer_fingerprint(one) for one in (dated, plain)]
    monkeypatch.setattr(module, "date", Tomorrow)
    after = [tokenizer_fingerprint(one) for one in (dated, plain)]
    assert before[0] != after[0]
    assert before[1] == after[1]


def test_a_moved_folder_hits_and_is_reported_where_it_is(recipe):
    TokenStore(recipe(), byte_tokenizer()).get(RowReader(recipe().recipe.data), quiet)
    moved = recipe(folder="moved")
    found = TokenStore(moved, byte_tokenizer()).get(None, quiet)
    assert found.report["source"]["path"].endswith("moved/rows.jsonl")


def test_a_plugins_code_is_part_of_the_key(recipe, made, tmp_path):
    code = """
import alignzoo
from alignzoo.interfaces.rows import Completion, Row

class Lines(alignzoo.Format):
    "Lines."
    name = "lines"

    def row(self, id, record, where):
        return Row(id, record["prompt"], (Completion("a"), Completion("b")), record["prompt"])

@alignzoo.hookimpl
def register_formats():
    return [Lines]
"""
    data = {"format": {"name": "lines"}}
    for text, want in ((code, True), (code, False), (code.replace('"a"', '"c"'), True)):
        plugin = tmp_path / "lines.py"
        plugin.write_text(text)
        assert made(recipe(records=SCORED, data=data, plugins=[str(ZOO_FILE), str(plugin)])) == want


def test_another_format_misses(recipe, made, monkeypatch):
    assert made(recipe())
    monkeypatch.setattr(module, "FORMAT_VERSION", module.FORMAT_VERSION + 1)
    assert made(recipe())


def test_a_file_that_grows_while_it_is_read_is_an_error_and_then_a_new_run(recipe, monkeypatch):
    """Rows of one reading are never stored under the hash of another."""
    resolved, real = recipe(), module.TokenizePipeline
    before = resolved.fingerprint
    file = Path(resolved.recipe.data.path)

    def growing(*arguments):
        with open(file, "a") as rows:
            rows.write(json.dumps(hh_records(31)[30]) + "\n")
        return real(*arguments)

    monkeypatch.setattr(module, "TokenizePipeline", growing)
    with pytest.raises(UserError, match="data: the data has changed since the run's fingerprint was computed"):
        TokenStore(resolved, byte_tokenizer()).get(RowReader(resolved.recipe.data), quiet)
    assert list(stored(cache_root())) == []
    monkeypatch.setattr(module, "TokenizePipeline", real)
    again = load_recipe(resolved.path)
    assert again.fingerprint != before
    assert TokenStore(again, byte_tokenizer()).get(RowReader(again.recipe.data), quiet).report["read"] == 31


def test_a_file_that_never_stays_the_same_has_no_digest(tmp_path, monkeypatch):
    from alignzoo.core import digests

    file, real = tmp_path / "rows.jsonl", digests._digest
    file.write_text("{}\n")

    def growing(path, *state):
        with open(file, "a") as rows:
            rows.write("{}\n")
        return real(path, *state)

    monkeypatch.setattr(digests, "_digest", growing)
    with pytest.raises(UserError, match=r"rows\.jsonl: the file changes while it is read"):
        digests.cached_file_digest(file)


# --- on disk


def only_folder() -> Path:
    (folder,) = stored(cache_root())
    return folder


@pytest.mark.parametrize("name", ["train.safetensors", "held_out.safetensors", "held_out.jsonl", "about.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "gone"])
@pytest.mark.slow
def test_damage_is_reported_set_aside_and_made_good(recipe, no_fork, name, how):
    resolved = recipe("kto", LABELS)
    want = TokenStore(resolved, byte_tokenizer()).get(RowReader(resolved.recipe.data), quiet)
    file = only_folder() / name
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.unlink()
    if how != "gone":
        file.write_bytes(raw if how == "flipped" else raw[: len(raw) // 2])
    lines = []
    for _ in range(2):
        found = TokenStore(resolved, byte_tokenizer()).get(RowReader(resolved.recipe.data), lines.append)
        same(found.train.trees, want.train.trees)
        assert list(found.held_out.rows) == list(want.held_out.rows)
        assert found.report == want.report
    assert [line.split()[-1] for line in lines] == ["again", "rows", "store"]
    assert "damaged; set aside" in lines[0]
    assert [path.suffix for path in leftovers(cache_root())] == [".damaged"]


def test_processes_at_once_do_the_work_once(recipe, monkeypatch):
    resolved = recipe()
    counter, results = Counter(monkeypatch), []
    ready = threading.Barrier(4)

    def one() -> None:
        store = TokenStore(resolved, byte_tokenizer())
        ready.wait()
        results.append(store.get(RowReader(resolved.recipe.data), quiet))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.calls == 1
    assert len(results) == 4
    for found in results:
        same(found.train.trees, results[0].train.trees)


def test_without_locks_the_slower_one_uses_what_the_faster_one_made(recipe, monkeypatch):
    monkeypatch.setattr(module, "locked_if_possible", lambda *_: nullcontext())
    resolved = recipe()
    slow, fast = (TokenStore(resolved, byte_tokenizer()) for _ in range(2))
    real = module.TokenizePipeline

    def late(*arguments):
        monkeypatch.setattr(module, "TokenizePipeline", real)
        fast.get(RowReader(resolved.recipe.data), quiet)
        return real(*arguments)

    monkeypatch.setattr(module, "TokenizePipeline", late)
    lines = []
    found = slow.get(RowReader(resolved.recipe.data), lines.append)
    assert len(lines) == 1, "that it came second is nobody's trouble"
    assert len(found.train.trees) + len(found.held_out.trees) == 30
    assert leftovers(cache_root()) == []
    assert only_folder().is_dir()


def test_what_breaks_off_leaves_nothing_to_be_found(recipe, made, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_manifest", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made(recipe())
    assert list(stored(cache_root())) == []
    assert made(recipe())


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(recipe):
    cache_root().mkdir()
    (cache_root() / "tokens").write_text("in the way")
    lines = []
    found = TokenStore(recipe(), byte_tokenizer()).get(RowReader(recipe().recipe.data), lines.append)
    assert len(found.train.trees) > 20
    assert len(found.train.rows) == 8, "those that are shown"
    assert "could not be written: file exists; the next run makes them again" in lines[-1]


def test_arrays_are_mapped_and_writing_to_them_changes_no_file(recipe):
    resolved = recipe("odpo", SCORED)
    found = TokenStore(resolved, byte_tokenizer()).get(RowReader(resolved.recipe.data), quiet)
    arrays = {name: getattr(found.train.trees, name) for name in (*ARRAYS, "keys")} | found.train.trees.columns
    for array in arrays.values():
        base = array
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
        array[:] = 0
    again = TokenStore(resolved, byte_tokenizer()).get(None, quiet)
    assert again.train.trees.tokens.any()
    whole = load_file(only_folder() / "train.safetensors")
    assert np.array_equal(whole["tokens"], again.train.trees.tokens)


def test_the_cache_is_listed_and_pruned_with_its_tokens(recipe, made):
    made(recipe())
    broken = cache_root() / "tokens" / f".{'0' * 32}.1234.damaged"
    shutil.copytree(only_folder(), broken)

    def cache(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "alignzoo", "cache", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert f"{only_folder().name}  tokens" in cache("ls")
    assert str(broken) in cache("prune")
    assert not broken.exists()
    assert only_folder().exists()
    assert str(only_folder()) in cache("prune", "--all")
    assert "the cache is empty" in cache("ls")


# --- whole runs


@pytest.mark.slow
def test_a_run_from_the_store_is_the_same_run(monkeypatch):
    """The SFT run tokenizes for all; a run is the same bytes with and without the store."""
    calls = Counter(monkeypatch)
    sft = alignzoo.run("recipes/sft_hh.yaml", overlays=[SMALLEST])
    assert calls.calls == 1
    first = alignzoo.run("recipes/dpo_hh.yaml", overlays=[SMALLEST])
    other = alignzoo.run("recipes/dpo_hh.yaml", ["objective.beta=0.5", "seed=3"], [SMALLEST])
    assert calls.calls == 1
    names = ("policy/model.safetensors", "metrics.jsonl", "samples.jsonl", "data.json")
    want = [(first.folder / name).read_bytes() for name in names]
    assert (other.folder / names[0]).read_bytes() != want[0]
    shutil.rmtree(cache_root() / "tokens")
    again = alignzoo.run("recipes/dpo_hh.yaml", overlays=[SMALLEST], fresh=True)
    assert calls.calls == 2
    assert [(again.folder / name).read_bytes() for name in names] == want
    resolved = load_recipe("recipes/sft_hh.yaml", (), [SMALLEST])
    trained = load_tokenizer(resolved.recipe.model, RowReader(resolved.recipe.data))
    assert tokenizer_fingerprint(trained) == tokenizer_fingerprint(pretrained_tokenizer(str(sft.policy)))

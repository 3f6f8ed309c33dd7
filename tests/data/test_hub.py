from __future__ import annotations

import sys

import pytest
from hh_rows import dialogue, hh_records

from alignzoo.core.errors import UserError
from alignzoo.data.formats.records import Records
from alignzoo.data.sources.files import Files
from alignzoo.data.sources.hh import HH
from alignzoo.data.sources.hub import Hub, load_tables
from alignzoo.data.splits import read_rows
from alignzoo.interfaces.data_source import DataSource
from alignzoo.interfaces.rows import Row, Skipped
from alignzoo.recipe.load import load_recipe


def ids(source: DataSource, split="train") -> list[str]:
    return [row.id for row in source.read(split)]


def only(source: DataSource) -> Row | Skipped:
    (row,) = source.read("train")
    return row


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# --- tables


@pytest.mark.parametrize(
    ("record", "prompt", "texts"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "b"}, "p", ["a", "b"]),
        ({"chosen": dialogue("p", "a"), "rejected": dialogue("p", "b")}, "\n\nHuman: p\n\nAssistant:", [" a", " b"]),
        ({"prompt": [user("p")], "chosen": [assistant("a")], "rejected": [assistant("b")]}, [user("p")], ["a", "b"]),
        ({"prompt": [user("p")], "chosen": "a", "rejected": "b"}, [user("p")], ["a", "b"]),
        ({"prompt": "p", "chosen": [assistant("a")], "rejected": [assistant("b")]}, [user("p")], ["a", "b"]),
        ({"chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]}, [user("p")], ["a", "b"]),
        (  # UltraFeedback as many publish it: the prompt's text beside the whole chats
            {"prompt": "p", "chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("b")]},
            [user("p")], ["a", "b"],
        ),
        (
            {
                "chosen": [user("p"), assistant("x"), user("q"), assistant("a")],
                "rejected": [user("p"), assistant("x"), user("q"), assistant("b")],
            },
            [user("p"), assistant("x"), user("q")], ["a", "b"],
        ),
    ],
)  # fmt: skip
def test_every_shape_of_a_pair(write, record, prompt, texts):
    row = only(Files(path=write("t.jsonl", [record])))
    assert isinstance(row, Row)
    assert row.prompt == (prompt if isinstance(prompt, str) else tuple(prompt))
    found = [c.text if isinstance(c.text, str) else c.text[0]["content"] for c in row.completions]
    assert found == texts
    assert "p" in row.group


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"prompt": "p", "chosen": "a", "rejected": "a"}, "chosen equals rejected"),
        ({"prompt": "p", "chosen": " ", "rejected": "a"}, "empty completion"),
        ({"prompt": "p", "chosen": None, "rejected": "a"}, "empty completion"),
        ({"prompt": "p", "chosen": [], "rejected": [assistant("a")]}, "empty completion"),
        ({"chosen": [user("p"), assistant("a")], "rejected": [user("q"), assistant("b")]}, "no shared prompt"),
        ({"chosen": [user("p"), assistant("a")], "rejected": [user("p"), assistant("a")]}, "chosen equals rejected"),
        (
            {"chosen": [user("p"), assistant("a"), user("q")], "rejected": [user("p"), assistant("b"), user("q")]},
            "no assistant reply at the end",
        ),
    ],
)
def test_pairs_that_cannot_be_used_are_skipped_with_a_reason(write, record, reason):
    row = only(Files(path=write("t.jsonl", [record])))
    assert isinstance(row, Skipped)
    assert row.reason == reason


PLAIN = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("record", "fields", "message"),
    [
        (
            {"choosen": "a", "rejected": "b"},
            {},
            "no column 'chosen'; expected one of choosen, rejected; did you mean 'choo",
        ),
        (
            {"chosen": "a", "rejected": "b"},
            {},
            "no prompt: there is no column 'prompt', and the completions are not HH dialogues",
        ),
        ({"promt": "p", "chosen": "a", "rejected": "b"}, {}, "did you mean 'promt'?"),
        (
            PLAIN,
            {"prompt": "promt"},
            "no column 'promt'; expected one of prompt, chosen, rejected; did you mean 'pro",
        ),
        (PLAIN, {"id": "uid"}, "no column 'uid'; expected one of prompt, chosen, rejected"),
        (PLAIN | {"chosen": 3}, {}, "chosen: the value is a number; expected a string or a list of chat messages"),
        (
            PLAIN | {"rejected": [assistant("b")]},
            {},
            "chosen and rejected have different types; expected two strings",
        ),
        (PLAIN | {"chosen": [3]}, {}, "chosen: not a chat message; expected"),
        (PLAIN | {"chosen": [{"role": "assistant"}]}, {}, "chosen: a chat message has no text; expected"),
    ],
)
def test_what_a_table_lacks_is_an_error_with_file_and_line(write, record, fields, message):
    path = write("t.jsonl", [{"prompt": "p", "promt": "p", "uid": 1, "chosen": "a", "rejected": "b"}, record])
    with pytest.raises(UserError) as error:
        ids(Files(path=path, format=Records(**fields)))
    assert "t.jsonl:2" in str(error.value)
    assert message in str(error.value)


def test_columns_of_other_names_and_own_ids(write):
    record = {"question": "p", "good": "a", "bad": "b", "uid": 7}
    source = Files(
        path=write("t.jsonl", [record]),
        format=Records(prompt="question", chosen="good", rejected="bad", id="uid"),
    )
    assert only(source).id == "7"


def test_ids_must_be_unique(write):
    records = [{"prompt": prompt, "chosen": "a", "rejected": "b", "uid": 7} for prompt in ("p", "q")]
    with pytest.raises(UserError, match="2 rows have the id '7'; expected a unique id"):
        read_rows(Files(path=write("t.jsonl", records), format=Records(id="uid")))


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"p{i}", "chosen": "a", "rejected": "b"} for i in range(count)]


def test_a_folder_that_datasets_saved(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder = str(tmp_path / "saved")
    parts = {"train": datasets.Dataset.from_list(pairs(5)), "validation": datasets.Dataset.from_list(pairs(2))}
    datasets.DatasetDict(parts).save_to_disk(folder)
    source = Files(path=folder)
    assert source.splits() == ("train", "test")
    assert ids(source, "test") == ["validation:1", "validation:2"]
    parts["train"].save_to_disk(str(tmp_path / "one"))
    assert Files(path=str(tmp_path / "one")).splits() == ("train",)
    assert len(ids(Files(path=str(tmp_path / "one")))) == 5
    datasets.Dataset.from_list(pairs(4)).save_to_disk(str(tmp_path / "two"))
    assert Files(path=str(tmp_path / "one")).fingerprint() != Files(path=str(tmp_path / "two")).fingerprint()
    datasets.DatasetDict().save_to_disk(str(tmp_path / "none"))
    with pytest.raises(UserError, match="none: the dataset has no splits"):
        ids(Files(path=str(tmp_path / "none")))
    next((tmp_path / "one").glob("*.arrow")).unlink()
    with pytest.raises(UserError, match=r"one/data-00000-of-00001\.arrow: no such file"):
        ids(Files(path=str(tmp_path / "one")))


SPLITS = ("test_prefs", "test_sft", "train_prefs", "train_sft")


@pytest.mark.parametrize(
    ("names", "kinds", "fields", "want"),
    [
        (SPLITS, {"pair"}, {}, ("train_prefs", "test_prefs")),
        (SPLITS, {"chosen"}, {}, ("train_sft", "test_sft")),
        (SPLITS, {"pair", "chosen"}, {}, ("train_prefs", "test_prefs")),
        (SPLITS, {"unpaired"}, {"train_split": "train_sft"}, ("train_sft", "test_sft")),
        (SPLITS, {"pair"}, {"test_split": "test_sft"}, ("train_prefs", "test_sft")),
        (("test", "train"), set(), {}, ("train", "test")),
        (("a", "test"), set(), {}, ("a", "test")),
        (("validation", "train", "eval"), set(), {}, ("train", "validation")),
        (("test_sft", "train_prefs"), {"pair"}, {}, ("train_prefs", None)),
        (("test",), set(), {"train_split": "test"}, ("test", None)),
        (SPLITS, {"unpaired"}, {}, "the training split is ambiguous"),
        (("a", "b"), {"pair"}, {}, "the training split is ambiguous"),
        (("train_a", "train_b", "test"), {"pair"}, {}, "the training split is ambiguous"),
        (("test",), {"pair"}, {}, "every split is a test split"),
        (("test", "validation"), {"pair"}, {}, "every split is a test split"),
    ],
    ids=lambda part: str(sorted(part)) if isinstance(part, set) else str(part),
)
def test_which_splits_are_read(tmp_path, names, kinds, fields, want):
    datasets = pytest.importorskip("datasets")
    folder = str(tmp_path / "saved")
    parts = {name: datasets.Dataset.from_list(pairs(n + 1)) for n, name in enumerate(names)}
    datasets.DatasetDict(parts).save_to_disk(folder)
    source = Files(path=folder, **fields).serving(kinds)
    if isinstance(want, str):
        with pytest.raises(UserError) as error:
            ids(source)
        assert f"{want}; expected train_split: one of {', '.join(names)}" in str(error.value)
        assert "data.train_split" in str(error.value)
        return
    assert ids(source) == [f"{want[0]}:{n + 1}" for n in range(len(parts[want[0]]))]
    assert source.splits() == (("train", "test") if want[1] else ("train",))
    if want[1]:
        assert ids(source, "test")[-1] == f"{want[1]}:{len(parts[want[1]])}"


def test_a_recipe_reads_the_split_that_its_objective_is_for(tmp_path):
    datasets = pytest.importorskip("datasets")
    parts = {name: datasets.Dataset.from_list(pairs(3)) for name in SPLITS}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    resolved = load_recipe("dpo_hh", {"data": {"name": "files", "path": str(tmp_path / "saved")}})
    assert ids(resolved.recipe.data)[0] == "train_prefs:1"
    assert ids(resolved.start.recipe.data)[0] == "train_sft:1"
    assert resolved.data_fingerprint != resolved.start.data_fingerprint


def test_the_fingerprint_of_a_saved_dataset_follows_every_file_that_is_read(tmp_path):
    datasets = pytest.importorskip("datasets")
    folder, far = tmp_path / "saved", tmp_path / "far"
    parts = {name: datasets.Dataset.from_list(pairs(n)) for n, name in enumerate(("train", "extra", "test"), 2)}
    datasets.DatasetDict(parts).save_to_disk(folder)

    def found() -> tuple[str, int]:
        source = Files(path=str(folder))
        return source.fingerprint(), len(list(source.read("test")))

    seen = [found()]
    (folder / "cache-123.arrow").write_bytes(b"of a map that somebody ran")
    assert found() == seen[0]
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "extra"]}')
    assert Files(path=str(folder)).fingerprint() != seen[0][0]
    assert Files(path=str(folder)).splits() == ("train",)
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "extra", "test"]}')
    (folder / "test").rename(far)
    (folder / "test").symlink_to(far)
    assert found() == seen[0], "a split may be a link"
    datasets.Dataset.from_list(pairs(9)).save_to_disk(tmp_path / "other")
    for file in far.iterdir():
        file.unlink()
    for file in (tmp_path / "other").iterdir():
        file.rename(far / file.name)
    assert found()[1] == 9
    assert found()[0] != seen[0][0]


# --- the hub


@pytest.fixture
def hub(monkeypatch):
    """What `datasets.load_dataset` gives or raises is set by the test; nothing is fetched."""
    datasets = pytest.importorskip("datasets")
    calls = []

    def load(path, subset=None, revision=None):
        calls.append((path, subset, revision))
        if isinstance(load.result, Exception):
            raise load.result
        return datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in load.result.items()})

    load.calls = calls
    monkeypatch.setattr(datasets, "load_dataset", load)
    load_tables.cache_clear()
    yield load
    load_tables.cache_clear()


def test_the_hub_gives_what_hh_files_would(hub, write):
    hub.result = {"train": hh_records(3), "test": hh_records(2, "other")}
    source = Hub(path="Anthropic/hh-rlhf", revision="main")
    assert source.splits() == ("train", "test")
    rows = list(source.read("train"))
    files = list(HH(path=write("hh.jsonl", hh_records(3))).read("train"))
    assert [(r.prompt, r.completions, r.group) for r in rows] == [(r.prompt, r.completions, r.group) for r in files]
    assert [row.id for row in rows] == ["train:1", "train:2", "train:3"]
    assert hub.calls == [("Anthropic/hh-rlhf", None, "main")], "loaded once"


def test_hub_splits_by_name(hub):
    hub.result = {"train_prefs": pairs(4), "test_prefs": pairs(2), "test_sft": pairs(1)}
    source = Hub(path="someone/ultrafeedback", train_split="train_prefs", test_split="test_prefs")
    assert (len(ids(source, "train")), len(ids(source, "test"))) == (4, 2)
    with pytest.raises(UserError, match=r"no split 'test_pref'; expected one of .*; did you mean 'test_prefs'\?"):
        Hub(path="someone/ultrafeedback", test_split="test_pref").splits()


def test_no_hub_is_one_clear_line(hub):
    hub.result = ConnectionError("Couldn't reach 'Anthropic/hh-rlhf' on the Hub\nlong story")
    with pytest.raises(UserError) as error:
        read_rows(Hub(path="Anthropic/hh-rlhf"))
    assert str(error.value).startswith(
        "hub dataset Anthropic/hh-rlhf: the dataset can't be loaded: Couldn't reach 'Anthropic/hh-rlhf' on the Hub; "
        "expected an existing id"
    )


def test_without_datasets_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    load_tables.cache_clear()
    with pytest.raises(UserError, match=r"pip install 'alignzoo\[data\]'"):
        read_rows(Hub(path="Anthropic/hh-rlhf"))

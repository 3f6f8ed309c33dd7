"""`alignzoo eval`: the run's own figures again, and those of any rows, replies, judges and tasks, without training."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner
from fake_plugins import REWARD_MODEL
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import alignzoo
from alignzoo.cli import alignzoo as cli
from alignzoo.compare.eval_data import read_sets
from alignzoo.core.errors import UserError
from alignzoo.data.row_reader import RowReader
from alignzoo.recipe.load import load_recipe
from alignzoo.training.lm_eval import task_figures
from alignzoo.training.runs import remove_run

SMALL = ["train.max_steps=1", "data.max_train_rows=16", "eval.replies={num_prompts: 2, max_new_tokens: 4}"]
LISTS = [
    {"id": "1", "prompt": "\n\nHuman: Hi\n\nAssistant:", "chosen": [" Hello there"], "rejected": [" no", " go away", " x"], "subset": "Focus"},
    {"id": "2", "prompt": "\n\nHuman: Sum\n\nAssistant:", "chosen": [" two"], "rejected": [" a b c d e", " b", " the sea"], "subset": "Focus"},
    {"id": "3", "prompt": "\n\nHuman: Sky\n\nAssistant:", "chosen": [" blue"], "rejected": [" cats", " a tree", " an"], "subset": "Math"},
    {"id": "ref:1", "prompt": "\n\nHuman: Sea\n\nAssistant:", "chosen": [" blue"], "rejected": [" a cat", " tree"], "subset": "Ties"},
    {"id": "tied:1", "prompt": "\n\nHuman: Hue\n\nAssistant:", "chosen": [" blue", " red"], "rejected": [" a cat", " tree"], "subset": "Ties"},
]  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run of DPO and its start, a run of a reward model, and the lists."""
    root = tmp_path_factory.mktemp("eval")
    (root / "ranks.py").write_text(REWARD_MODEL)
    recipe = {"extends": str(alignzoo.__file__).replace("alignzoo/__init__.py", "recipes/dpo_hh.yaml"),
              "plugins": ["ranks.py"], "objective": "ranks"}  # fmt: skip
    (root / "rm.yaml").write_text(yaml.safe_dump(recipe))
    (root / "lists.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LISTS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        dpo = alignzoo.run(
            "recipes/dpo_hh.yaml", [*SMALL, "train.optimizer.learning_rate=0.01"], ["tests/smallest.yaml"]
        )
        rm = alignzoo.run(root / "rm.yaml", SMALL, ["tests/smallest.yaml"])
    return root, dpo.folder, rm.folder


@pytest.fixture
def at(made, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_CACHE", str(made[0] / "cache"))
    monkeypatch.setenv("ALIGNZOO_RUNS", str(made[0] / "runs"))
    return made


def evaluated(folder, *options):
    """The report of a run."""
    done = CliRunner().invoke(cli, ["eval", str(folder), *map(str, options), "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def bytes_of(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*")) if path.is_file() and "eval" not in path.relative_to(folder).parts
    }  # fmt: skip


@pytest.mark.slow
def test_the_runs_own_rows_have_the_figures_of_its_last_evaluation(at):
    _, folder, _ = at
    before, summary = bytes_of(folder), json.loads((folder / "summary.json").read_text())["eval"]
    report = evaluated(folder)
    assert bytes_of(folder) == before
    assert json.loads((folder / "eval" / "own.json").read_text()) == report
    found = report["sets"]["held_out"]["figures"]
    for name in ("loss", "preference_accuracy", "likelihood_accuracy"):
        assert found[name]["mean"] == pytest.approx(summary[name], abs=1e-5), name
        assert found[name]["low"] <= found[name]["mean"] <= found[name]["high"]
        assert found[name]["n"] == summary["n"]
    assert found["loss"]["se"] > 0
    assert found["margin"]["mean"] != 0
    assert "replies" not in report["sets"]["held_out"]  # no judge reads them


@pytest.mark.slow
def test_other_rows_metrics_judges_and_replies(at, tmp_path):
    _, folder, _ = at
    rows = [row for held_out, row in RowReader(load_recipe(folder).recipe.data).used() if held_out]
    records = [
        {"prompt": row.prompt, "chosen": row.completions[0].text, "rejected": row.completions[1].text} for row in rows
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    options = (
        "--data",
        file,
        "--metrics",
        "entropy",
        "--judge",
        "length",
        "--prompts",
        "3",
        "--temperature",
        "1",
        "-o",
        tmp_path / "r.json",
    )
    report = evaluated(folder, *options)
    own, found = evaluated(folder)["sets"]["held_out"], report["sets"]["mine"]
    assert found["rows"] == own["rows"] == len(rows)
    for name, figure in own["figures"].items():  # the same rows from a file
        assert found["figures"][name]["mean"] == pytest.approx(figure["mean"], abs=1e-5), name
    assert found["figures"].keys() - own["figures"].keys() == {"entropy"}
    assert len(found["replies"]) == 3
    assert {line["judges"]["length"]["reward"] for line in found["replies"]}
    assert found["judges"]["length"]["reward"]["n"] == 3
    assert 0 <= found["judges"]["length"]["over_chosen"]["mean"] <= 1
    assert all(line["length"] <= 4 for line in found["replies"])
    assert report["settings"]["replies"]["temperature"] == 1
    assert json.loads((tmp_path / "r.json").read_text()) == report


@pytest.mark.slow
def test_a_reward_model_of_another_run_judges_the_replies(at):
    root, folder, rm = at
    report = evaluated(
        folder, "--judge", f"{{name: reward_model, from: {rm}}}", "--prompts", "2", "-o", root / "judged.json"
    )
    found = report["sets"]["held_out"]
    tokenizer = AutoTokenizer.from_pretrained(rm / "policy")
    model = AutoModelForSequenceClassification.from_pretrained(rm / "policy", num_labels=1)
    for line in found["replies"]:
        ids = [*tokenizer(f"{line['prompt']} {line['reply'].strip()}")["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            score = float(model(torch.tensor([ids])).logits[0, 0])
        assert line["judges"]["reward_model"]["reward"] == pytest.approx(score, abs=1e-4)
    assert found["judges"]["reward_model"]["reward"]["n"] == 2
    (root / "later.yaml").write_text(f"extends: {root / 'rm.yaml'}\nseed: 7\n")
    with pytest.raises(UserError, match="is not finished") as error:
        CliRunner().invoke(
            cli,
            ["eval", str(folder), "--judge", f"{{name: reward_model, from: {root / 'later.yaml'}}}"],
            catch_exceptions=False,
        )
    assert "alignzoo run" in error.value.problems[0].hint


@pytest.mark.slow
def test_a_mistake_is_a_sentence(at, tmp_path):
    root, folder, rm = at
    for options, said in (
        (["--metrics", "entropie"], "did you mean 'entropy'"),
        (["--data", "no.jsonl"], "no such file or folder"),
        (["--data", "{name: filess, path: x}"], "did you mean 'files'"),
        (["--metrics", "[entropy]"], "metrics"),
        (["--best-of-n"], "--data"),
        (["--best-of-n", "--judge", "length"], "--judge can't be combined with --best-of-n"),
        (["--data", str(root / "lists.jsonl"), "-o", str(root / "lists.jsonl")], "the data would be replaced"),
        (["--data", str(root / "lists.jsonl"), "--lm-eval", "arc"], "can't be combined"),
        (["--lm-eval-arg", "limit=3"], "expected --lm-eval TASK"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=said):
            CliRunner().invoke(cli, ["eval", str(folder), *options], catch_exceptions=False)
    with pytest.raises(UserError, match="reward model, which writes no replies to judge"):
        CliRunner().invoke(cli, ["eval", str(rm), "--judge", "length"], catch_exceptions=False)


@pytest.mark.slow
def test_without_the_start_there_are_no_implicit_rewards_but_the_rest(at, tmp_path, monkeypatch):
    root, folder, rm = at
    shutil.copytree(root / "runs", tmp_path / "runs")
    start = load_recipe(tmp_path / "runs" / folder.name).start.path.parent
    remove_run(start)
    with pytest.raises(UserError, match=r"model\.from: the run was removed"):
        CliRunner().invoke(cli, ["eval", str(tmp_path / "runs" / folder.name)], catch_exceptions=False)
    figures = evaluated(tmp_path / "runs" / rm.name)["sets"]["held_out"]["figures"]  # its rewards need no reference
    assert {"loss", "preference_accuracy", "margin"} <= figures.keys()


def log_prob(model, tokenizer, prompt, completion):
    """log pi(completion, EOS | prompt) by the model's own forward."""
    start = len(tokenizer(prompt)["input_ids"])
    ids = torch.tensor([[*tokenizer(prompt + completion)["input_ids"], tokenizer.eos_token_id]])
    with torch.no_grad():
        logs = model(ids).logits[0, :-1].double().log_softmax(-1)
    return float(logs.gather(-1, ids[0, 1:, None])[start - 1 :].sum())


@pytest.mark.slow
def test_best_of_n_by_implicit_rewards(at):
    root, folder, _ = at
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    start = load_recipe(folder).start.path.parent
    models = [AutoModelForCausalLM.from_pretrained(one / "policy") for one in (folder, start)]
    found = evaluated(folder, "--data", root / "lists.jsonl", "--best-of-n")["sets"]["lists"]
    assert found["rows"] == len(LISTS)
    want: dict[str, list[float]] = {}
    for line in LISTS[:3]:
        texts = [*line["chosen"], *line["rejected"]]
        logs = np.array([[log_prob(model, tokenizer, line["prompt"], text) for text in texts] for model in models])
        want.setdefault(line["subset"], []).append(float(np.argmax(logs[0] - logs[1]) == 0))
    figures = found["best_of_n"]
    for subset, credits in want.items():
        assert figures[subset]["mean"] == np.mean(credits)
    assert set(figures) == {"Focus", "Math", "Ties", "overall"}
    assert set(figures["Ties"]["parts"]) == {"tied_accuracy", "ref_accuracy", "preferred", "preferred_hard", "margin"}
    assert figures["overall"]["mean"] == pytest.approx(
        np.mean([figures[name]["mean"] for name in ("Focus", "Math", "Ties")])
    )


@pytest.mark.slow
def test_best_of_n_by_a_reward_model(at):
    root, _, folder = at
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "policy", num_labels=1)
    found = evaluated(folder, "--data", root / "lists.jsonl", "--best-of-n")["sets"]["lists"]["best_of_n"]
    for subset, lines in (("Focus", LISTS[:2]), ("Math", LISTS[2:3])):
        credits = []
        for line in lines:
            ids = [
                [*tokenizer(line["prompt"] + text)["input_ids"], tokenizer.eos_token_id]
                for text in (*line["chosen"], *line["rejected"])
            ]
            with torch.no_grad():
                scores = [float(model(torch.tensor([one])).logits[0, 0]) for one in ids]
            credits.append(float(np.argmax(scores) == 0))
        assert found[subset]["mean"] == np.mean(credits)


@pytest.fixture
def harness(monkeypatch):
    """A stand-in of lm_eval that records how it is called."""
    calls = []

    class HFLM:
        def __init__(self, **options):
            calls.append(("HFLM", options))

    def simple_evaluate(**options):
        calls.append(("simple_evaluate", options))
        if "nope" in options["tasks"]:
            raise KeyError("nope")
        result = {
            "alias": "arc",
            "acc,none": 0.5,
            "acc_stderr,none": 0.1,
            "ppl,none": float("nan"),
            "ppl_stderr,none": "N/A",
        }
        return {"results": {"arc": result}, "config": {"model": options["model"]}, "samples": {}}

    names = ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface")
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["lm_eval"].simple_evaluate = simple_evaluate
    sys.modules["lm_eval.models.huggingface"].HFLM = HFLM
    return calls


@pytest.mark.slow
def test_tasks_are_those_of_lm_eval_on_the_runs_own_model(at, harness):
    _, folder, rm = at
    options = ("--lm-eval", "arc, hellaswag", "--lm-eval-arg", "num_fewshot=5", "--lm-eval-arg", "batch_size=8")
    report = evaluated(folder, *options)
    (_, model), (_, call) = harness
    trained = AutoModelForCausalLM.from_pretrained(folder / "policy").state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in model["pretrained"].state_dict().items())
    assert model["tokenizer"].get_vocab() == AutoTokenizer.from_pretrained(folder / "policy").get_vocab()
    assert model["batch_size"] == 8
    assert call["tasks"] == ["arc", "hellaswag"]
    assert call["num_fewshot"] == 5
    assert report["lm_eval"]["results"]["arc"]["acc,none"] == 0.5
    assert report["lm_eval"]["results"]["arc"]["ppl,none"] is None
    assert "samples" not in report["lm_eval"]
    assert json.loads((folder / "eval" / "lm_eval.json").read_text()) == report
    with pytest.raises(UserError, match="lm_eval: KeyError: 'nope'"):
        CliRunner().invoke(cli, ["eval", str(folder), "--lm-eval", "nope"], catch_exceptions=False)
    with pytest.raises(UserError, match="a reward model writes no replies"):
        CliRunner().invoke(cli, ["eval", str(rm), "--lm-eval", "arc"], catch_exceptions=False)


@pytest.mark.slow
def test_without_lm_eval_its_extra_is_named(at, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"pip install 'alignzoo\[lm-eval\]'"):
        CliRunner().invoke(cli, ["eval", str(at[1]), "--lm-eval", "arc"], catch_exceptions=False)


def test_the_figures_of_tasks_have_the_interval_of_their_standard_error():
    results = {
        "arc": {"alias": "arc", "acc,none": 0.5, "acc_stderr,none": 0.1, "em,strict": 1, "em_stderr,strict": "N/A"}
    }
    assert task_figures({"results": results}) == {
        "arc acc": {
            "mean": 0.5,
            "se": 0.1,
            "low": pytest.approx(0.304, abs=1e-5),
            "high": pytest.approx(0.696, abs=1e-5),
        },
        "arc em (strict)": {"mean": 1.0, "se": None, "low": None, "high": None},
    }


def test_data_is_named_by_files_recipes_and_sources(tmp_path):
    part = tmp_path / "my part.yaml"
    part.write_text(
        "data: {name: files, path: rows.jsonl, max_train_rows: 5}\neval: {data: {more: {name: hub, path: a/b}}}\n"
    )
    (tmp_path / "rows.jsonl").write_text("{}\n")
    found = read_sets([str(part), f"{tmp_path}/rows.jsonl.gz", "{name: hh, path: toy}", "train.csv"])
    assert found["my_part"] == {"name": "files", "path": str(tmp_path / "rows.jsonl")}
    assert found["more"] == {"name": "hub", "path": "a/b"}
    assert found["rows"]["path"] == f"{tmp_path}/rows.jsonl.gz"
    assert found["toy"] == {"name": "hh", "path": "toy"}
    assert "train_rows" in found
    with pytest.raises(UserError, match="two evaluation sets are called 'rows'"):
        read_sets(["a/rows.jsonl", "b/rows.jsonl"])
    part.write_text("train: {batch_size: 3}\n")
    with pytest.raises(UserError, match="the recipe has no data"):
        read_sets([str(part)])
    part.write_text("data: [1, 2]\n")
    with pytest.raises(UserError, match=r"my part.yaml:1:7: `data` is no data source"):
        read_sets([str(part)])
    with pytest.raises(UserError, match="--data: no file is given"):
        read_sets([""])

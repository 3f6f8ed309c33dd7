"""Metrics, judges, reporters, formats and model sources that a recipe names, in whole runs."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

import alignzoo
from alignzoo.core.errors import UserError
from alignzoo.recipe.load import load_recipe
from alignzoo.training.records import read_lines

PLUGIN = '''
import torch
from alignzoo import Judge, Metric, ModelSource, Format, Reporter, Row, Completion, Field, hookimpl

class Longer(Metric):
    """Share of pairs whose chosen completion is longer; pairs of one length have no number."""
    name = "longer"
    def values(self, example, objective):
        gap = example.chosen.length - example.rejected.length
        return (gap > 0).double().masked_fill(gap == 0, torch.nan)

class Risen(Metric):
    """Mean log-ratio of the chosen completion, token by token."""
    name = "risen"
    reference = "token"
    tokens = True
    def values(self, example, objective):
        return example.chosen.tokens.sum(example.chosen.tokens.log_ratio)

class Score(Metric):
    """A column of the data."""
    name = "scored"
    columns = ("votes",)
    def values(self, example, objective):
        return example.column("votes")

class Scalar(Metric):
    """The reward model's mean output."""
    name = "output"
    head = "scalar"
    def values(self, example, objective):
        return example.chosen.scalar - example.rejected.scalar

class Length(Judge):
    """Longer is better."""
    name = "words"
    def scores(self, prompts, replies):
        return [float(len(reply)) for reply in replies]

class First(Judge):
    """Can only compare, and likes whatever comes first."""
    name = "first"
    def prefers(self, prompts, first, second):
        return [1.0 for _ in first]

class Silent(Judge):
    """Does not answer."""
    name = "silent"
    def scores(self, prompts, replies):
        raise ConnectionError("nobody is there\\nreally")

class Diary(Reporter):
    """Writes down what it receives."""
    name = "diary"
    def on_start(self, folder, recipe, step):
        (folder / "diary.txt").write_text(f"start {recipe['name']} {step}\\n")
    def on_log(self, folder, line):
        with open(folder / "diary.txt", "a") as file:
            file.write(f"{line['kind']} {line['step']}\\n")
    def on_finish(self, folder, summary):
        with open(folder / "diary.txt", "a") as file:
            file.write(f"finish {summary['name']} {(folder / 'policy').is_dir()}\\n")

class Clumsy(Reporter):
    """Fails at the second line."""
    name = "clumsy"
    def on_log(self, folder, line):
        if line["step"] == 1:
            raise RuntimeError("out of ink")

class Lines(Format):
    """Question, good and bad answer in one string."""
    name = "lines"
    mark: str = Field("|", description="between the three")
    def row(self, id, record, where):
        question, good, bad = record["line"].split(self.mark)
        return Row(id, question, (Completion(good), Completion(bad)), group=question)

class Noisy(ModelSource):
    """The model in a folder with noise on its weights."""
    name = "noisy"
    path: str = Field(description="a folder")
    noise: float = Field(0.0, ge=0, description="standard deviation")
    def load_tokenizer(self, train_rows):
        from transformers import AutoTokenizer
        return AutoTokenizer.from_pretrained(self.path)
    def load_model(self, tokenizer, seed, head):
        from transformers import AutoModelForCausalLM
        model = AutoModelForCausalLM.from_pretrained(self.path)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += self.noise * torch.randn(parameter.shape, generator=generator)
        return model

@hookimpl
def register_metrics():
    return [Longer, Risen, Score, Scalar]

@hookimpl
def register_judges():
    return [Length, First, Silent]

@hookimpl
def register_reporters():
    return [Diary, Clumsy]

@hookimpl
def register_formats():
    return [Lines]

@hookimpl
def register_models():
    return [Noisy]
'''


PLUGIN_REWARD = '''
from alignzoo import Objective, hookimpl

class Reward(Objective):
    """A reward model."""
    name = "reward"
    head = "scalar"
    reference = "none"
    def loss(self, pair):
        return (pair.rejected.scalar - pair.chosen.scalar).sigmoid()

@hookimpl
def register_objectives():
    return [Reward]
'''


@pytest.fixture
def overlay(tmp_path):
    """`overlay(text)`: a recipe to lay on top, beside a file with the plugins above."""
    (tmp_path / "named.py").write_text(PLUGIN)

    def write(text: str) -> str:
        path = tmp_path / "overlay.yaml"
        path.write_text(f"plugins: [named.py]\n{text}\n")
        return str(path)

    return write


@pytest.fixture
def go(trained, tmp_path, overlay):
    """Run DPO at its smallest with an overlay; the SFT run is there."""
    import shutil

    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)

    def run(text: str, *overrides: str, recipe: str = "recipes/dpo_hh.yaml", **options) -> alignzoo.RunResult:
        return alignzoo.run(recipe, list(overrides), ["tests/smallest.yaml", overlay(text)], **options)

    return run


# --- metrics


@pytest.mark.slow
def test_metrics_are_in_every_evaluation_with_their_errors(go):
    result = go("eval: {metrics: [longer, risen, entropy, normalized_accuracy]}\nreporters: [html]")
    lines = [line for line in read_lines(result.folder / "metrics.jsonl") if line["kind"] == "eval"]
    for line in lines:
        assert 0 < line["longer"] < 1
        assert 0 < line["longer_se"] < 0.2
    assert lines[0]["risen"] == pytest.approx(0, abs=1e-4)
    assert lines[-1]["risen"] == pytest.approx(lines[-1]["chosen_log_ratio"], abs=1e-4)
    assert 0 < lines[-1]["entropy"] < 7
    assert "0.1" in result.summary["objective"].__repr__()
    page = (result.folder / "report.html").read_text()
    assert "normalized accuracy" in page


@pytest.mark.slow
def test_metrics_do_not_depend_on_the_budget(go):
    text = "eval: {metrics: [longer, risen, entropy, normalized_accuracy]}"
    small, large = (
        go(text, f"train.micro_batch_tokens={budget}", f"name=of-{budget}").summary["eval"] for budget in (300, 4096)
    )
    for name in ("longer", "risen", "entropy", "normalized_accuracy"):
        assert small[name] == pytest.approx(large[name], rel=1e-4, abs=1e-5)


@pytest.mark.slow
def test_a_metric_brings_its_own_reference_and_columns(go, tmp_path):
    """SFT needs neither; the reference of the held-out rows alone is scored."""
    rows = [{"prompt": f"p{i}", "chosen": "a b", "rejected": "b c", "votes": i + 1} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    limits = "max_train_rows: 128, held_out_rows: 8"
    text = f"eval: {{metrics: [risen, scored]}}\ndata: {{name: files, path: rows.jsonl, {limits}}}"
    result = go(text, recipe="recipes/sft_hh.yaml")
    assert result.summary["reference"] == {"kind": "none", "rows_scored": 8, "rows_cached": 0}
    assert result.summary["eval"]["risen"] > 0
    assert result.summary["eval"]["scored"] > 0


@pytest.mark.slow
def test_a_metric_of_a_reward_model(go, overlay):
    problem = "eval.metrics.0: output measures a reward model, and dpo trains a language model"
    with pytest.raises(UserError, match=problem):
        load_recipe("dpo_hh", [], [overlay("eval: {metrics: [output]}")])


@pytest.mark.slow
def test_a_metric_whose_column_is_not_there_is_an_error_before_training(go):
    with pytest.raises(UserError, match=r"scored needs the column 'votes', which row .* does not have"):
        go("eval: {metrics: [scored]}")


def test_a_metric_of_pairs_on_single_completions_is_an_error(go, tmp_path):
    rows = [{"prompt": f"p{i}", "completion": "a b c", "label": True} for i in range(200)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = "eval: {metrics: [longer]}\ndata: {name: files, path: rows.jsonl}"
    with pytest.raises(UserError, match=r"longer compares completions, and row .* has a single labeled"):
        go(text, recipe="recipes/sft_hh.yaml")


# --- judges


@pytest.mark.slow
def test_judges_score_the_samples_and_one_that_fails_costs_only_its_own_figures(go):
    result = go("eval: {judges: [words, first, silent, toy], replies: {num_prompts: 5}}\nreporters: [html]")
    judges = result.summary["judges"]
    samples = read_lines(result.folder / "samples.jsonl")
    mean = sum(len(sample["after"].strip()) for sample in samples) / 5
    assert judges["words"]["reward"] == pytest.approx(mean)
    assert judges["words"]["reward_n"] == 5
    assert judges["first"]["win_rate_over_chosen"] == 1.0
    assert "reward" not in judges["first"]
    assert judges["silent"] == {"problem": "ConnectionError: nobody is there"}
    assert -1 <= judges["toy"]["reward"] <= 1
    page = (result.folder / "report.html").read_text()
    assert "failed: ConnectionError: nobody is there" in page


def test_a_judge_that_can_say_nothing_has_no_figure():
    from alignzoo.core.console import Screen
    from alignzoo.evaluation.judges.toy import ToyJudge
    from alignzoo.evaluation.judging import run_judge

    rows = [alignzoo.Row("1", "What is this?", (alignzoo.Completion("a"),), group="g")]
    said = run_judge(ToyJudge(), [rows[0].prompt], [{"before": "a", "after": "b", "chosen": "c"}], Screen(quiet=True))
    assert said["reward"] is None
    assert said["win_rate_over_chosen_n"] == 0


def test_an_undesirable_completion_alone_is_nobodys_chosen_one():
    from alignzoo.core.console import Screen
    from alignzoo.evaluation.judges.toy import ToyJudge
    from alignzoo.evaluation.judging import run_judge
    from alignzoo.evaluation.samples import best_and_worst

    row = alignzoo.Row("1", "p", (alignzoo.Completion("bad", columns={"desirable": 0.0}),), group="g")
    assert best_and_worst(row) == {"chosen": "", "rejected": "bad"}
    line = {"before": "a", "after": "b"} | best_and_worst(row)
    assert run_judge(ToyJudge(), [row.prompt], [line], Screen(quiet=True))["win_rate_over_chosen_n"] == 0


def test_a_language_model_does_not_start_from_a_reward_model(tmp_path):
    (tmp_path / "reward.py").write_text(PLUGIN_REWARD)
    (tmp_path / "reward_hh.yaml").write_text("extends: dpo_hh\nplugins: [reward.py]\nobjective: reward\n")
    (tmp_path / "mine.yaml").write_text("extends: dpo_hh\nmodel: {from: reward_hh.yaml}\n")
    with pytest.raises(UserError, match="reward_hh trains a reward model"):
        load_recipe(tmp_path / "mine.yaml")


def test_a_tie_is_one_half_and_what_can_not_be_said_is_nothing():
    from alignzoo.evaluation.judges.toy import ToyJudge

    class Fixed(ToyJudge):
        def scores(self, prompts, replies):
            return [float(reply) for reply in replies]

    got = Fixed().prefers([""] * 4, ["1", "2", "2", "nan"], ["2", "2", "1", "0"])
    assert got[:3] == [0.0, 0.5, 1.0]
    assert got[3] != got[3]


# --- reporters


@pytest.mark.slow
def test_a_reporter_receives_everything_and_one_that_fails_changes_nothing(go):
    quiet = go("reporters: []")
    noisy = go("reporters: [diary, clumsy]", fresh=True)
    diary = (noisy.folder / "diary.txt").read_text().splitlines()
    assert diary[:4] == ["start dpo_hh 0", "eval 0", "exactness 0", "train 1"]
    assert diary[-2:] == ["eval 8", "finish dpo_hh True"]
    assert not (noisy.folder / "report.html").exists()
    assert noisy.folder == quiet.folder
    assert noisy.summary["model"] == quiet.summary["model"]
    assert noisy.summary["plugins"][1]["code"].keys() == {"diary", "clumsy"}


@pytest.mark.slow
def test_the_tracker_speaks_to_accelerates_trackers(go, monkeypatch):
    from accelerate import tracking

    calls = []

    class Fake:
        requires_logging_directory = True

        def __init__(self, name, logging_dir):
            calls.append(("open", name, logging_dir.endswith("/tracker")))

        def start(self):
            calls.append("start")

        def store_init_configuration(self, values):
            calls.append(values["train.optimizer.name"])

        def log(self, values, step):
            calls.append((step, sorted(values)[0].split("/")[0]))

        def finish(self):
            calls.append("finish")

    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Fake)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    go("reporters: [{name: tracker, project: mine}]")
    assert calls[:4] == [("open", "mine", True), "start", "adamw", (0, "eval")]
    assert calls[4:6] == [(0, "exactness"), (1, "train")]
    assert calls[-1] == "finish"


def test_a_tracker_that_is_not_installed_is_an_error_before_anything_is_done(go):
    with pytest.raises(UserError, match="the tracker dvclive is not installed") as error:
        go("reporters: [{name: tracker, to: dvclive}]")
    assert "pip install dvclive" in str(error.value)


# --- formats and model sources


@pytest.mark.slow
def test_a_format_of_ones_own(go, tmp_path):
    lines = [json.dumps({"line": f"question {i}; good answer {i}; bad"}) for i in range(200)]
    (tmp_path / "lines.jsonl").write_text("\n".join(lines))
    text = "data: {name: files, path: lines.jsonl, format: {name: lines, mark: ;}}"
    result = go(text)
    assert result.summary["data"]["read"] == 200
    (about,) = [one for one in result.summary["plugins"] if one["package"] == "named.py"]
    assert about["code"].keys() == {"lines"}
    shown = (result.folder / "recipe.yaml").read_text()
    assert "name: lines" in shown


def test_a_format_is_part_of_the_fingerprint(overlay, tmp_path):
    (tmp_path / "lines.jsonl").write_text("")
    text = "data: {name: files, path: lines.jsonl, format: {name: lines, mark: '%s'}}"
    prints = [load_recipe("dpo_hh", [], [overlay(text % mark)]).fingerprint for mark in "|;|"]
    assert prints[0] == prints[2] != prints[1]


def test_what_show_prints_of_named_things_is_the_same_recipe(overlay, tmp_path):
    text = (
        "eval: {metrics: [longer], judges: [words]}\nreporters: [diary]\ndata: {name: files, path: x.jsonl, format: hh}"
    )
    (tmp_path / "x.jsonl").write_text("")
    resolved = load_recipe("sft_hh", [], [overlay(text)])
    again = tmp_path / "again.yaml"
    again.write_text(resolved.to_yaml())
    assert load_recipe(again).fingerprint == resolved.fingerprint
    assert [one.name for one in load_recipe(again).recipe.reporters] == ["diary"]


@pytest.mark.slow
def test_a_model_source_of_ones_own(go, trained):
    sft = next((trained / "runs").glob("sft_hh-*/policy"))
    text = "model: {name: noisy, path: %s, noise: 0.01}\ntrain: {optimizer: {name: sgd, learning_rate: 1e-12}}"
    result = go(text % sft, recipe="recipes/sft_hh.yaml")
    before, after = (AutoModelForCausalLM.from_pretrained(place).lm_head.weight for place in (sft, result.policy))
    assert 0.005 < float((after - before).std()) < 0.02
    assert result.summary["model"]["start"].startswith("noisy(")
    again = go(text % sft, recipe="recipes/sft_hh.yaml", fresh=True)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(again.policy).lm_head.weight, after)


def test_a_model_source_on_top_of_a_recipe_that_starts_from_a_run_is_that_runs_first_policy(overlay, trained):
    sft = next((trained / "runs").glob("sft_hh-*/policy"))
    resolved = load_recipe("dpo_hh", [], [overlay(f"model: {{name: noisy, path: {sft}}}")])
    assert resolved.recipe.model.name == "transformers"
    assert resolved.start


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("eval: {metrics: [entrpy]}", "eval.metrics.0.name: no metric is called 'entrpy'; did you mean 'entropy'?"),
        ("eval: {metrics: 3}", "eval.metrics: not a list; expected a list of metrics"),
        ("eval: {metrics: [entropy, entropy]}", "eval.metrics: entropy is there twice"),
        ("eval: {judges: [{name: words, unit: cm}]}", "eval.judges.0.unit: no such field"),
        (
            "eval: {metrics: [flipped]}",
            "no metric is called 'flipped'\n    flipped is in another package: pip install ",
        ),
        ("reporters: [htlm]", "reporters.0.name: no reporter is called 'htlm'; did you mean 'html'?"),
        (
            "model: {name: soop, path: x}",
            "no model source is called 'soop'; did you mean 'soup'?\n    soup is in another package: pip install alig",
        ),
        ("data: {name: files, path: x, format: {nam: hh}}", "data.format.name: missing"),
        (
            "data: {name: files, path: x, format: {name: records, promt: q}}",
            "data.format.promt: no such field; did you",
        ),
    ],
)
def test_a_mistake_is_reported_at_its_place(overlay, text, problem):
    recipe = "sft_hh"
    with pytest.raises(UserError) as error:
        load_recipe(recipe, [], [overlay(text)])
    assert problem in str(error.value)
    assert "overlay.yaml:2:" in str(error.value)

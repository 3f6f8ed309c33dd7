"""The model card of an exported policy: what the hub reads of it, its intervals, and what stays on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from finished_run import RECIPE, SUMMARY, finished_run
from huggingface_hub import ModelCard, constants

from alignzoo.training.card_figures import card_figures
from alignzoo.training.model_card import CardOptions, model_card


@pytest.fixture
def card(tmp_path, monkeypatch):
    """Make the card of a run with other sections, read back by huggingface_hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def make(summary=None, repo="", license="", **recipe):
        run = finished_run(tmp_path / "runs" / "dpo_pairs-abababab", summary, weights=False, **recipe)
        text = model_card(run, run / "policy", False, CardOptions(repo, license))
        return ModelCard(text), text

    return make


def test_the_hub_reads_base_model_data_library_tags_and_results(card):
    found, text = card(repo="me/it", license="mit")
    data = found.data
    assert (data.base_model, data.datasets) == ("meta-llama/Llama-3.2-1B", ["Anthropic/hh-rlhf"])
    assert (data.library_name, data.pipeline_tag, data.license) == ("transformers", "text-generation", "mit")
    assert (data.tags, data.model_name) == (["alignzoo", "dpo"], "it")
    results = {(one.dataset_name, one.metric_name): one for one in data.eval_results}
    accuracy = results["Anthropic/hh-rlhf", "preference_accuracy"]
    assert (accuracy.dataset_type, accuracy.dataset_split, accuracy.metric_type) == (
        "Anthropic/hh-rlhf",
        "held_out",
        "accuracy",
    )
    assert (accuracy.metric_value, accuracy.metric_args["rows"]) == (0.75, 400)
    assert results["hard", "preference_accuracy"].metric_args["high_95"] == 1.0
    assert 'AutoModelForCausalLM.from_pretrained("me/it", dtype="auto")' in text
    assert "dpo on hub (`Anthropic/hh-rlhf`), trained with alignzoo 0.2.0 from `meta-llama/Llama-3.2-1B`." in text
    assert "| learning rate | 0.0001 |" in text
    assert "| accuracy by implicit rewards | 400 | 0.5 | 0.75 | 0.7053 to 0.7899 |" in text
    assert yaml.safe_load(text.split("```yaml\n")[1].split("```")[0]) == RECIPE


def test_intervals_are_wilsons_for_shares_and_the_normals_for_means():
    found = {one.name if not one.dataset else f"{one.dataset}/{one.name}": one for one in card_figures(SUMMARY)}
    for end in found["preference_accuracy"].interval:  # Wilson 1927: where the score test just rejects
        assert (0.75 - end) ** 2 == pytest.approx(1.959964**2 * end * (1 - end) / 400, rel=1e-4)
    # All of 100: the lower end is 1 / (1 + z^2 / n), and the upper is 1
    assert found["hard/preference_accuracy"].interval == pytest.approx((1 / (1 + 1.959964**2 / 100), 1.0), abs=1e-6)
    assert found["entropy"].interval == pytest.approx((2.0 - 0.1959964, 2.0 + 0.1959964))
    assert found["length/reward"].interval == pytest.approx((1.5 - 0.979982, 1.5 + 0.979982))
    assert found["length/reward"].before == 1.0
    assert found["margin"].interval is None
    assert (found["preference_accuracy"].before, found["loss"].before) == (0.5, 0.69)
    assert not any("broken" in name for name in found)


def test_no_path_of_this_machine_and_no_secret(card, tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "sesame-0123456789")
    _, text = card(
        plugins=[str(tmp_path / "mine.py")],
        model={"name": "transformers", "path": str(tmp_path / "models" / "llama"), "dtype": "float32"},
        data={"name": "mix", "of": [{"name": "files", "path": [str(tmp_path / "a.jsonl"), "~/b.jsonl"]}, {"name": "toy"}]},
        eval={"judges": [{"name": "endpoint", "url": "http://user:hunter22@judge:8000/v1", "note": "sesame-0123456789"}]},
    )  # fmt: skip
    for private in (str(tmp_path), str(Path.home()) + "/", "~/", "hunter22", "sesame"):
        assert private not in text
    assert "dpo on files (`a.jsonl`, `b.jsonl`) and toy, trained with alignzoo 0.2.0 from `llama`." in text
    assert "base_model" not in text
    assert "datasets" not in text
    assert "- mine.py" in text


def test_a_chain_of_starts_ends_at_the_base_model(card, tmp_path):
    finished_run(tmp_path / "runs" / "sft-0", weights=False)
    found, text = card(model={"from": "../sft-0/recipe.yaml", "path": None, "dtype": "float32"})
    assert found.data.base_model == "meta-llama/Llama-3.2-1B"
    assert "from the run `sft-0`, which started from `meta-llama/Llama-3.2-1B`." in text
    (tmp_path / "runs" / "sft-0" / "recipe.yaml").unlink()
    found, text = card(model={"from": "../sft-0/recipe.yaml", "path": None, "dtype": "float32"})
    assert found.data.base_model is None
    assert "from the run `sft-0`." in text


@pytest.mark.parametrize(
    ("readme", "want"),
    [
        (
            "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---\n# x\n",
            ("other", "llama3", "LICENSE"),
        ),
        ("---\nlicense: [a, b]\n---\n", (None, None, None)),
        ("---\na: &a [*a]\n---\n", (None, None, None)),
        ("no head", (None, None, None)),
    ],
)
def test_the_license_is_that_of_the_base_models_own_card(card, tmp_path, readme, want):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "README.md").write_text(readme)
    found, _ = card(model={"name": "transformers", "path": str(tmp_path / "base"), "dtype": "float32"})
    assert (found.data.license, found.data.license_name, found.data.license_link) == want
    found, _ = card(license="mit", model={"name": "transformers", "path": str(tmp_path / "base")})
    assert (found.data.license, found.data.license_name) == ("mit", None)


def test_a_license_in_the_hubs_cache_is_found_without_a_network(card, tmp_path):
    repo = tmp_path / "hub" / "models--meta-llama--Llama-3.2-1B"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    (snapshot / "README.md").write_text("---\nlicense: llama3.2\n---\n")
    assert card()[0].data.license == "llama3.2"


def test_a_reward_model_and_a_recipe_with_fences(card, tmp_path):
    card()
    policy = tmp_path / "runs" / "dpo_pairs-abababab" / "policy"
    (policy / "config.json").write_text(json.dumps({"architectures": ["LlamaForSequenceClassification"]}))
    (policy.parent / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | {"note": "```` no end"}))
    text = model_card(policy.parent, policy, False, CardOptions())
    assert ModelCard(text).data.pipeline_tag == "text-classification"
    assert 'AutoModelForSequenceClassification.from_pretrained("FOLDER"' in text
    assert "`````yaml\n" in text

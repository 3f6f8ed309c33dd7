import yaml
from alignzoo_card import Card

SUMMARY = {
    "name": "dpo_hh", "fingerprint": "12" * 16, "objective": {"name": "dpo", "beta": 0.1},
    "model": {"start": "the run of sft_hh"}, "train": {"steps": 10, "pairs": 160},
    "eval": {"n": 100, "loss": 0.5, "preference_accuracy": 0.75, "preference_accuracy_se": 0.04},
    "versions": {"alignzoo": "0.1.0"},
}  # fmt: skip


def test_a_card_has_the_hubs_metadata_the_figures_and_the_recipe(tmp_path):
    (tmp_path / "policy").mkdir()
    (tmp_path / "recipe.yaml").write_text("name: dpo_hh\n")
    Card(license="mit").on_finish(tmp_path, SUMMARY)
    text = (tmp_path / "policy" / "README.md").read_text()
    _, head, body = text.split("---\n", 2)
    assert yaml.safe_load(head) == {"license": "mit", "library_name": "transformers", "tags": ["alignzoo", "dpo"]}
    assert "| preference accuracy | 0.75 ± 0.04 |" in body
    assert "10 optimizer steps of 16 rows" in body
    assert "name: dpo_hh" in body

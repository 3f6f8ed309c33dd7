"""A plugin's code is its version and every module of its own package: a change of any part reaches every key."""

from __future__ import annotations

import pytest
import yaml
from byte_tokenizer import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from alignzoo.data.token_store import TokenStore
from alignzoo.evaluation.judging import judge_key
from alignzoo.recipe.load import load_recipe
from alignzoo.reference.scores import cache_folder
from alignzoo.registry.lookup import Registry, registry
from alignzoo.scoring.scorer import Scorer

PLUGIN = '''
from alignzoo import DataSource, Judge, ModelSource, hookimpl
from alignzoo.interfaces.rows import Completion, Row
from {helper} import rows

class Mine(DataSource):
    """Rows."""
    name = "mine"
    def read(self, split):
        return (Row(str(i), "p", (Completion("a"), Completion("b")), "p") for i in range(rows.COUNT))

class Loads(ModelSource):
    """A model."""
    name = "loads"

class Reads(Judge):
    """A judge."""
    name = "reads"

@hookimpl
def register_data_sources():
    return [Mine]

@hookimpl
def register_models():
    return [Loads]

@hookimpl
def register_judges():
    return [Reads]
'''
RECIPE = {
    "objective": "dpo", "data": "mine", "model": {"name": "loads"}, "eval": {"judges": ["reads"]}, "reporters": [],
    "train": {"optimizer": {"name": "sgd", "learning_rate": 1}},
}  # fmt: skip


@pytest.fixture
def package(install, tmp_path):
    """A plugin of two modules in a package, and the folder that holds it."""
    site = tmp_path / "site"
    install("alignzoo-two", "from two_package_module.plugin import *\n")
    (site / "two_package_module").mkdir()
    (site / "two_package_module" / "__init__.py").write_text("")
    (site / "two_package_module" / "rows.py").write_text("COUNT = 3\n")
    (site / "two_package_module" / "plugin.py").write_text(PLUGIN.format(helper="two_package_module"))
    yield site
    registry.cache_clear()


def keys(recipe) -> dict[str, str]:
    """Every key of stored work that the plugin's code is part of."""
    registry.cache_clear()
    resolved = load_recipe(recipe)
    config = LlamaConfig(vocab_size=4, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1)
    model = LlamaForCausalLM(config)
    for parameter in model.parameters():
        parameter.data.fill_(0.5)
    return {
        "run": resolved.fingerprint,
        "tokens": TokenStore(resolved, byte_tokenizer()).key,
        "verdicts": judge_key(resolved.recipe.eval.judges[0], resolved.registry),
        "reference": cache_folder(recipe.parent, Scorer(model), resolved.source_code).name,
    }


def differing(one: dict[str, str], other: dict[str, str]) -> set[str]:
    return {key for key in one if one[key] != other[key]}


EVERY = {"run", "tokens", "verdicts", "reference"}


def test_the_helper_module_and_the_version_of_a_package_are_part_of_every_key(package, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    first = keys(recipe)
    cache = package / "two_package_module" / "__pycache__"
    cache.mkdir(exist_ok=True)
    (cache / "rows.cpython-00.pyc").write_bytes(b"x")
    assert keys(recipe) == first, "bytecode is no source"
    (package / "two_package_module" / "rows.py").write_text("COUNT = 4\n")
    helper = keys(recipe)
    assert differing(first, helper) == EVERY
    metadata = package / "alignzoo_two-1.0.dist-info" / "METADATA"
    metadata.write_text(metadata.read_text().replace("Version: 1.0", "Version: 1.1"))
    version = keys(recipe)
    assert differing(helper, version) == EVERY


def test_the_modules_beside_a_plugin_file_that_it_imports_are_part_of_every_key(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    beside = tmp_path / "beside_module"
    beside.mkdir()
    (beside / "__init__.py").write_text("from beside_module.deep import COUNT\n")
    (beside / "deep.py").write_text("COUNT = 3\n")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "mine.py").write_text(PLUGIN.replace("from {helper} import rows", "import beside_module as rows"))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE | {"plugins": ["mine.py"]}))
    first = keys(recipe)
    (tmp_path / "other.py").write_text("# nobody imports this\n")
    assert keys(recipe) == first
    (beside / "deep.py").write_text("COUNT = 4\n")
    assert differing(first, keys(recipe)) == EVERY


def test_every_module_that_a_distribution_installs_counts(install, tmp_path):
    """A helper that is a top-level module of its own, listed in RECORD alone."""
    site = tmp_path / "site"
    (site / "helper_module.py").write_text("A = 1\n")
    text = (
        'import helper_module\nfrom alignzoo import Judge, hookimpl\nclass J(Judge):\n    "A judge."\n    name = "j"\n'
    )
    install("alignzoo-flat", text + "@hookimpl\ndef register_judges():\n    return [J]\n")
    record = site / "alignzoo_flat-1.0.dist-info" / "RECORD"
    record.write_text("alignzoo_flat_module.py,,\nhelper_module.py,,\nalignzoo_flat-1.0.dist-info/METADATA,,\n")

    def code() -> str:
        found = Registry()
        return found.origin(found.find("judge", "j")).code

    first = code()
    (site / "helper_module.py").write_text("A = 2\n")
    assert code() != first

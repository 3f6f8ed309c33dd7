import shutil

import pytest

import alignzoo
from alignzoo.cli.data import tokenizer_of
from alignzoo.data.row_reader import RowReader
from alignzoo.models.loading import load_policy
from alignzoo.recipe.load import load_recipe

pytest.importorskip("peft", reason="adapters are peft's: pip install 'alignzoo[lora]'")
SMALLEST = "tests/smallest.yaml"
LORA = "model.lora={r: 4, alpha: 8}"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with the smallest SFT run, a DPO run of adapters on it and their cache: made once, and copied."""
    root = tmp_path_factory.mktemp("trained")
    patch = pytest.MonkeyPatch()
    patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
    patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
    alignzoo.run("recipes/dpo_hh.yaml", [LORA], [SMALLEST])
    patch.undo()
    return root


@pytest.fixture
def start_folder(tmp_path):
    """A folder with the smallest model before its training: adapters need a model that is there."""
    resolved = load_recipe("recipes/sft_hh.yaml", [], [SMALLEST])
    tokenizer = tokenizer_of(resolved, RowReader(resolved.recipe.data))
    for part in (tokenizer, load_policy(resolved.recipe.model, tokenizer, 0)):
        part.save_pretrained(tmp_path / "start")
    return tmp_path / "start"


@pytest.fixture
def run(trained, tmp_path):
    """Run a recipe at its smallest size with adapters, in this test's own copy of those runs."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)

    def go(*overrides, recipe="recipes/dpo_hh.yaml", lora=LORA, overlays=(), **options):
        return alignzoo.run(recipe, [*([lora] if lora else []), *overrides], [SMALLEST, *overlays], **options)

    return go


@pytest.fixture(scope="session")
def tokenizer():
    from architectures import VOCABULARY
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "<eos>")), eos_token="<eos>")

import shutil

import pytest

import alignzoo

SMALLEST = "tests/smallest.yaml"


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A folder with the smallest SFT run and its cache, made once and copied by the tests that start from it."""
    root = tmp_path_factory.mktemp("trained")
    patch = pytest.MonkeyPatch()
    patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
    patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
    alignzoo.run("recipes/sft_hh.yaml", overlays=[SMALLEST])
    patch.undo()
    return root


@pytest.fixture(scope="session")
def finished(trained, tmp_path_factory):
    """The same folder with the smallest DPO run in it too."""
    root = shutil.copytree(trained, tmp_path_factory.mktemp("finished") / "all")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGNZOO_CACHE", str(root / "cache"))
        patch.setenv("ALIGNZOO_RUNS", str(root / "runs"))
        alignzoo.run("recipes/dpo_hh.yaml", overlays=[SMALLEST])
    return root


def smallest(recipe="recipes/dpo_hh.yaml", *overrides, **options):
    return alignzoo.run(recipe, list(overrides), [SMALLEST], **options)


@pytest.fixture
def run(trained, tmp_path):
    """Run a recipe at its smallest size, in this test's own copy of the SFT run."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return smallest


@pytest.fixture
def again(finished, tmp_path):
    """The same where the DPO run is done too: `again()` gives that one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return smallest

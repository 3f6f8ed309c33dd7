"""The example's wheel, installed beside alignzoo's in an environment of its own, is found and trains by its recipe."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import torch
from checkout import ROOT

DEPENDENCIES = Path(torch.__file__).parent.parent


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """A new environment with the two wheels; only their dependencies are this environment's."""
    folder = tmp_path_factory.mktemp("clean")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = folder / "source"  # a copy: building in the checkout would leave build folders there
    ignore = shutil.ignore_patterns(".git", ".venv", "runs", "build", "*.egg-info", "__pycache__", ".*_cache")
    shutil.copytree(ROOT, source, ignore=ignore)
    packages = [str(source), str(source / "plugins" / "alignzoo-example")]
    wheels = folder / "wheels"
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", str(wheels), *packages]
    subprocess.run(built, check=True)
    venv.create(folder / "env", with_pip=False)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    made = sorted(map(str, wheels.glob("*.whl")))
    assert len(made) == 2
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), *made], check=True)
    (site / "dependencies.pth").write_text(f"{DEPENDENCIES}\n")
    return folder / "env" / "bin" / "python"


def run(environment: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    names = ("ALIGNZOO_PLUGINS", "PYTHONPATH", "PYTHONHOME")
    variables = {key: value for key, value in os.environ.items() if key not in names}
    command = [str(environment), "-P", *arguments]
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.mark.slow
def test_the_example_is_found_and_trains(environment, tmp_path):
    where = run(
        environment, tmp_path, "-c", "import alignzoo, alignzoo_example as e; print(alignzoo.__file__, e.__file__)"
    )
    assert all(path.startswith(str(environment.parents[1])) for path in where.stdout.split()), (
        where.stdout + where.stderr
    )
    (plugin,) = json.loads(run(environment, tmp_path, "-m", "alignzoo", "list", "plugins", "--json").stdout)
    assert (plugin["package"], plugin["offers"]) == ("alignzoo-example", {"objective": ["hinge"]})
    shutil.copy(ROOT / "plugins" / "alignzoo-example" / "hinge_hh.yaml", tmp_path)
    words = ["-m", "alignzoo", "run", "hinge_hh.yaml", "--with", "scale/smallest", "--json"]
    done = run(environment, tmp_path, *words)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["objective"] == {"name": "hinge", "beta": 0.1}
    assert summary["plugins"][1]["code"].keys() == {"hinge"}
    assert summary["eval"]["loss"] < summary["eval"]["loss_before"]

"""What `pip install alignzoo` brings: the package with its recipes, its sample and its template, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest
from checkout import ROOT
from setuptools import find_packages


def test_every_package_is_in_the_wheel():
    named = set(find_packages(str(ROOT), include=["alignzoo", "alignzoo.*"]))
    there = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "alignzoo").rglob("__init__.py")}
    assert named == there


@pytest.mark.slow
def test_a_wheel_brings_recipes_and_sample_and_runs_anywhere(tmp_path):
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    source = tmp_path / "source"  # a copy: building in the checkout would leave a build folder there
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(source)], check=True)
    wheel = next(tmp_path.glob("alignzoo-*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "recipes/dpo_hh.yaml",
        "recipes/bases/hh.yaml",
        "recipes/scale/pythia-2.8b.yaml",
        "data/toy/topics.py",
        "models/chat_templates/chatml.jinja",
    ):
        assert f"alignzoo/{name}" in names
    for page in ("report/report.html.j2", "report/zoo.html.j2", "report/comparison/page.html.j2"):
        assert f"alignzoo/{page}" in names
    assert "alignzoo/py.typed" in names
    assert not [name for name in names if not name.startswith("alignzoo")]
    site = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)], check=True)
    environment = os.environ | {"PYTHONPATH": str(site)}
    command = [sys.executable, "-P", "-m", "alignzoo", "run", "recipes/dpo_hh.yaml", "--with", "scale/smallest"]
    code = "import alignzoo; print(alignzoo.__file__)"
    where = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert where.stdout.startswith(str(site))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "report: " in done.stdout

"""The steps of docs/plugins.md, "Ten minutes", in an empty folder."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from alignzoo.testing import CHECKS

PAGE = Path(__file__).parent.parent.parent / "docs" / "plugins.md"
FILES = ["my_loss.py", "mine.yaml", "tests/test_my_loss.py", "pyproject.toml"]


@pytest.mark.slow
def test_every_step_works(tmp_path):
    work, site = tmp_path / "work", tmp_path / "site"
    work.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "ALIGNZOO_PLUGINS"}
    environment["PYTHONPATH"] = str(site)
    steps = PAGE.read_text().partition("## Ten minutes")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", steps, flags=re.M | re.S)
    names, output = iter(FILES), ""
    for language, text in blocks:
        if language != "sh":
            file = work / next(names)
            assert f"`{file.relative_to(work)}`" in steps
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
            continue
        for line in text.splitlines():
            done = subprocess.run(_command(line, site), cwd=work, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            output += done.stdout
    assert next(names, None) is None
    for words in (
        "objective          my_loss(beta=0.2)",
        f"{len(CHECKS)} passed",
        "alignzoo-my-loss",
        "max(0, 1 - beta h)",
        "my_loss(beta=0.1)",
    ):
        assert words in output, words


def _command(line: str, site: Path) -> list[str]:
    """As written, but with this Python, offline, and installed beside it rather than into it."""
    words = shlex.split(line)
    if words[0] == "pip":
        quiet = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check"]
        return [sys.executable, "-m", *words, *quiet, "--target", str(site)]
    return [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]

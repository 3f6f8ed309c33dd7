import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `steps`, which a subprocess and a benchmark import too

from steps import build, random_rows


@pytest.fixture
def make_engine(tmp_path):
    """Build an engine over random rows and a tiny Llama: `make_engine(objective, micro_batch_tokens=64, ...)`."""

    def make(objective, **options):
        return build(objective, tmp_path / "reference", **options)

    return make


@pytest.fixture
def pairs():
    return random_rows("pair")

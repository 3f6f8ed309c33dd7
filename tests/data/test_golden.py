"""Stored tokens keep the meaning of their FORMAT_VERSION: the store reproduces the golden folders byte for byte."""

from __future__ import annotations

import json

import golden_tokens as golden
import numpy as np
import pytest
from safetensors.numpy import load_file

from alignzoo.data.token_store import CONTENT, FORMAT_VERSION, HELD_OUT_ROWS, PARTS, TRAIN_ROWS

WANT = golden.FOLDER / f"format-{FORMAT_VERSION}"
RAISE = "stored tokens have changed: raise FORMAT_VERSION and run tests/golden_tokens.py"


def test_there_is_one_golden_folder_for_this_format():
    assert [path.name for path in golden.FOLDER.iterdir()] == [WANT.name], RAISE
    assert {path.name for path in WANT.iterdir()} == set(golden.CASES)


@pytest.mark.parametrize("name", golden.CASES)
def test_the_store_makes_what_the_golden_folder_holds(name, tmp_path):
    made = golden.make(name, tmp_path)
    for part in PARTS:
        want, got = (load_file(folder / f"{part}.safetensors") for folder in (WANT / name, made))
        assert got.keys() == want.keys(), RAISE
        for key, array in want.items():
            assert got[key].dtype == array.dtype, f"{part} {key}: {RAISE}"
            assert np.array_equal(got[key], array, equal_nan=array.dtype == np.float32), f"{part} {key}: {RAISE}"
    for file in (TRAIN_ROWS, HELD_OUT_ROWS, CONTENT):
        assert (made / file).read_bytes() == (WANT / name / file).read_bytes(), RAISE
    assert golden.about(made) == json.loads((WANT / name / "about.json").read_text()), RAISE

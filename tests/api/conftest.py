"""A tiny model and its tokenizer."""

from __future__ import annotations

import pytest
from byte_tokenizer import byte_tokenizer
from tiny_inputs import make_model


@pytest.fixture
def model():
    return make_model()


@pytest.fixture
def tokenizer():
    return byte_tokenizer()

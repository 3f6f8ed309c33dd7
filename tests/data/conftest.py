"""A tokenizer of one token a byte, so that lengths in tests can be counted by eye, and files to read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from byte_tokenizer import byte_tokenizer
from transformers import PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write records as JSON lines (gzipped if the name says so) and give the path."""

    def written(name: str, records: list[dict] | bytes) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = records if isinstance(records, bytes) else "".join(json.dumps(r) + "\n" for r in records).encode()
        path.write_bytes(
            gzip.compress(raw, mtime=0) if name.endswith(".gz") and not isinstance(records, bytes) else raw
        )
        return str(path)

    return written

"""Golden folders of the token store: the stored tokens of a few small recipes.

`python tests/golden_tokens.py` writes the folder of the current FORMAT_VERSION. It never replaces an existing folder,
because one version has one meaning. After a change of the tokens, raise FORMAT_VERSION, run this, and remove the old
folder.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

import yaml
from byte_tokenizer import CHATML, byte_tokenizer
from hh_rows import dialogue

from alignzoo.core.artifacts import read_verified
from alignzoo.data.row_reader import RowReader
from alignzoo.data.token_store import CONTENT, FORMAT_VERSION, HELD_OUT_ROWS, PARTS, TRAIN_ROWS, TokenStore
from alignzoo.recipe.load import load_recipe

FOLDER = Path(__file__).parent / "data" / "golden"
PAIRS = [{"chosen": dialogue(f"q {i}", "a", "so?", f"good {i}"), "rejected": dialogue(f"q {i}", f"b{i % 2}", "what?", "bad")}
         for i in range(6)]  # fmt: skip
CHAT = [{"prompt": [{"role": "user", "content": f"p {i} ä\u2028"}], "chosen": [{"role": "assistant", "content": "yes"}],
         "rejected": [{"role": "assistant", "content": "no"}], "margin": i / 8, "chosen_score": i} for i in range(6)]  # fmt: skip
LABELS = [{"prompt": f"p {i}", "completion": f"answer {i}", "label": bool(i % 2)} for i in range(6)]
LISTS = [{"prompt": f"p {i}", "completions": ["a", f"b {i}", "c"], "scores": [3, 2.5, -1]} for i in range(6)]
LONG = [{"prompt": "x" * 30 + str(i), "chosen": "good " * 9, "rejected": "bad " * (i + 1)} for i in range(6)]
TOKENS = {"max_length": 40, "max_prompt_length": 20}
CASES = {
    "pairs": (PAIRS, {"tokens": {"max_length": 90, "max_prompt_length": 80}}, {}),
    "pairs-bos-truncated": (LONG, {"tokens": TOKENS, "data": {"held_out_fraction": 0.4, "label_noise": 0.5}}, {"prepends_bos": True}),
    "chat": (CHAT, {"objective": [{"name": "dpo"}, {"name": "sft"}], "eval": {"metrics": ["normalized_accuracy"]}}, {"template": CHATML}),
    "sft-of-labels": (LABELS, {"objective": "sft"}, {}),
    "lists-all-pairs": (LISTS, {"data": {"pairs": "all"}}, {}),
}  # fmt: skip
"""Name -> records, sections of the recipe, options of the tokenizer."""


def make(name: str, work: Path) -> Path:
    """Tokenize a case and return its folder in the token store. `work` is an empty folder, which is also the cache."""
    records, sections, options = CASES[name]
    rows = work / "rows.jsonl"
    rows.write_text("".join(json.dumps(record) + "\n" for record in records))
    node = {"objective": "dpo", "model": {"path": "nowhere"}, "reporters": [],
            "train": {"optimizer": {"name": "sgd", "learning_rate": 1}}} | sections  # fmt: skip
    node["data"] = {"name": "files", "path": str(rows)} | node.get("data", {})
    (work / "recipe.yaml").write_text(yaml.safe_dump(node))
    resolved = load_recipe(work / "recipe.yaml")
    store = TokenStore(resolved, byte_tokenizer(**options))
    store.root = work / "tokens"
    store.get(RowReader(resolved.recipe.data), lambda line: None)
    (folder,) = store.root.glob("[0-9a-f]*")
    return folder


def about(folder: Path) -> dict:
    """Return the content of about.json without digests and without the path of the rows."""
    found = read_verified(folder)
    assert found is not None, f"{folder} is damaged"
    del found["files"]
    del found["report"]["source"]
    return found


def main() -> None:
    target = FOLDER / f"format-{FORMAT_VERSION}"
    if target.exists():
        sys.exit(f"{target} exists: raise FORMAT_VERSION in alignzoo/data/token_store.py and run this again")
    for name in CASES:
        with tempfile.TemporaryDirectory() as work:
            made = make(name, Path(work))
            golden = target / name
            golden.mkdir(parents=True)
            for file in (*(f"{part}.safetensors" for part in PARTS), TRAIN_ROWS, HELD_OUT_ROWS, CONTENT):
                shutil.copyfile(made / file, golden / file)
            (golden / "about.json").write_text(json.dumps(about(made), indent=1) + "\n")
        print(golden)


if __name__ == "__main__":
    main()

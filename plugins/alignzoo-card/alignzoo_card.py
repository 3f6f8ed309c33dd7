"""Model cards in the format of the Hugging Face hub, as a reporter."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from alignzoo import Field, Reporter, hookimpl

TEXT = """---
{head}---

# {name}

Trained with alignzoo {version}: `{objective}`, from {start}, {steps} optimizer steps of {rows} rows.

| held-out data | |
| --- | --- |
{table}

The recipe (`alignzoo run recipe.yaml`; fingerprint `{fingerprint}`):

```yaml
{recipe}```
"""


class Card(Reporter):
    """Model card `policy/README.md` with the objective, the figures and the recipe.

    Source: Mitchell et al. 2019, "Model cards for model reporting", arXiv:1810.03993.
    """

    name = "card"

    license: str | None = Field(None, description="license of the weights, as on the hub: apache-2.0, mit, ...")
    language: str | None = Field(None, description="language, as on the hub: en, fr, ...")

    def on_finish(self, folder: Path, summary: Mapping[str, Any]) -> None:
        """Write the card from the summary and the resolved recipe."""
        about = {"license": self.license, "language": self.language, "library_name": "transformers"}
        head = {key: value for key, value in about.items() if value} | {"tags": ["alignzoo", _name(summary)]}
        numbers = {key: value for key, value in summary["eval"].items() if isinstance(value, int | float)}
        scores = {key: value for key, value in numbers.items() if not key.endswith("_se")}
        errors = {key: summary["eval"].get(f"{key}_se") for key in scores}
        lines = [
            f"| {key.replace('_', ' ')} | {value:.4g}{f' ± {errors[key]:.2g}' if errors[key] is not None else ''} |"
            for key, value in scores.items()
        ]
        text = TEXT.format(
            head=yaml.safe_dump(head, sort_keys=False), name=summary["name"], version=summary["versions"]["alignzoo"],
            objective=json.dumps(summary["objective"]), start=summary["model"]["start"],
            steps=summary["train"]["steps"], rows=summary["train"]["pairs"] // max(1, summary["train"]["steps"]),
            table="\n".join(lines), fingerprint=summary["fingerprint"],
            recipe=(folder / "recipe.yaml").read_text(encoding="utf-8"),
        )  # fmt: skip
        (folder / "policy" / "README.md").write_text(text, encoding="utf-8")


def _name(summary: Mapping[str, Any]) -> str:
    return summary["objective"]["name"]


@hookimpl
def register_reporters():
    return [Card]

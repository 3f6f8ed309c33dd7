"""Model soups: averages of the weights of several models, as a model source."""

import torch

from alignzoo import Field, ModelSource, UserError, content_digest, hookimpl


class Soup(ModelSource):
    """Uniform or weighted average of the weights of several models of one architecture.

    Source: Wortsman et al. 2022, "Model soups", arXiv:2203.05482: the uniform soup, unless `weights` are set.
    """

    name = "soup"

    paths: tuple[str, ...] = Field(min_length=2, description="folders in Hugging Face layout: policies of runs")
    weights: tuple[float, ...] | None = Field(
        None, description="one per path, divided by their sum; null: equal weights"
    )

    def load_tokenizer(self, train_rows):
        """Return the tokenizer of the first model."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self._folder(self.paths[0]), trust_remote_code=False)

    def load_model(self, tokenizer, seed, head):
        """Return the average of the weights, computed in float64."""
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        auto = AutoModelForSequenceClassification if head == "scalar" else AutoModelForCausalLM
        safe = {"trust_remote_code": False, "use_safetensors": True, "dtype": torch.float32}
        models = [auto.from_pretrained(self._folder(path), **safe) for path in self.paths]
        soup, total = models[0], sum(self._shares())
        with torch.no_grad():
            for name, parameter in soup.named_parameters():
                others = [dict(model.named_parameters()).get(name) for model in models]
                if any(other is None or other.shape != parameter.shape for other in others):
                    raise UserError(f"the models differ in shape: {name}", where="model.paths")
                mixed = sum(s / total * o.double() for s, o in zip(self._shares(), others, strict=True))
                parameter.copy_(mixed)
        return soup.to(getattr(torch, self.dtype))

    def fingerprint(self):
        """Return the contents of the folders, not their paths."""
        return {"name": self.name, "dtype": self.dtype, "weights": self._shares(),
                "contents": [content_digest(self._folder(path)) for path in self.paths]}  # fmt: skip

    def _shares(self):
        shares = self.weights or (1.0,) * len(self.paths)
        if len(shares) != len(self.paths) or min(shares) < 0 or sum(shares) <= 0:
            raise UserError(
                f"{len(shares)} weights for {len(self.paths)} paths", where="model.weights",
                expected="one per path, none negative, not all zero",
            )  # fmt: skip
        return shares

    @staticmethod
    def _folder(path):
        from pathlib import Path

        if not (Path(path) / "config.json").is_file():
            raise UserError("no model there", where=f"model.paths: {path}", expected="a folder with config.json")
        return Path(path)


@hookimpl
def register_models():
    return [Soup]

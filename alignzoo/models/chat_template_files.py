"""Chat templates for tokenizers without one, shipped or from a file, and their new tokens.

The first comment of a template can declare the special tokens that it needs and the one that ends a turn:

    {#- tokens: <|im_start|> <|im_end|>; eos: <|im_end|> -#}
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from alignzoo.core.door import in_child, read_text
from alignzoo.core.errors import UserError, nearest
from alignzoo.models.embeddings import embedding_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FOLDER = Path(__file__).parent / "chat_templates"
MAX_BYTES = 2**20
DECLARATION = re.compile(r"\{#-?\s*tokens:\s*(?P<tokens>[^;#]*?)\s*(?:;\s*eos:\s*(?P<eos>\S+)\s*)?-?#\}\n?")
MISPLACED = re.compile(r"\{#-?\s*(tokens|eos):")
NEW_TOKENS = "alignzoo_new_tokens"
"""Attribute with the ids that a chat template has added to a tokenizer, or that a model drew embeddings for."""
SPREAD, ROWS = 1e-9, 16_384
"""Variance of new embeddings, as a share of that of the others, as in transformers; and rows that are read at once."""


@dataclass(frozen=True, slots=True)
class TemplateFile:
    """A chat template and the tokens that it declares."""

    source: str
    tokens: tuple[str, ...] = ()
    eos: str | None = None
    """Token that ends a turn. None for the tokenizer's own end-of-sequence token."""


def template_names() -> list[str]:
    """Return the names of the shipped templates."""
    return sorted(path.stem for path in FOLDER.glob("*.jinja"))


def read_template(name: str) -> TemplateFile:
    """Read a shipped template by its name, or a file.

    Raises:
        UserError: There is no such template or file, or the file is no template.
    """
    where = "model.chat_template"
    shipped, path = FOLDER / f"{name}.jinja", Path(name)
    names = template_names()
    if name not in names and not path.is_file():
        raise UserError(
            f"no chat template is called '{name}', and there is no such file", where=where,
            expected=f"{', '.join(names)}, or a file with a jinja template", nearest=nearest(name, names),
        )  # fmt: skip
    file = shipped if name in names else path
    text = read_text(file, MAX_BYTES)
    if file is path:  # jinja computes constants when it compiles, which can take forever
        in_child(file, _check_syntax, text, what="the chat template")
    text = text.removeprefix("\ufeff")
    declared = DECLARATION.match(text)
    if declared is None:
        if found := MISPLACED.search(text):  # without it, marks would be split into pieces and nothing would end a turn
            raise UserError(
                f"{name} declares {found[1]} in a comment that can't be read", where=where,
                expected="{# tokens: <|a|> <|b|>; eos: <|b|> #} at the very beginning",
            )  # fmt: skip
        return TemplateFile(text)
    tokens = tuple(declared["tokens"].split())
    if declared["eos"] and declared["eos"] not in tokens:
        tokens += (declared["eos"],)
    return TemplateFile(text[declared.end() :], tokens, declared["eos"])


def _check_syntax(text: str) -> None:
    from jinja2 import TemplateSyntaxError
    from transformers.utils.chat_template_utils import _compile_jinja_template

    try:
        _compile_jinja_template(text)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None


def use_template(tokenizer: PreTrainedTokenizerBase, name: str) -> None:
    """Set the tokenizer's chat template, special tokens and end-of-sequence token, in place."""
    template = read_template(name)
    known = tokenizer.get_vocab()
    missing = [token for token in template.tokens if token not in known]
    if missing:
        tokenizer.add_special_tokens({"additional_special_tokens": missing}, replace_extra_special_tokens=False)
        setattr(tokenizer, NEW_TOKENS, tokenizer.convert_tokens_to_ids(missing))
    tokenizer.chat_template = template.source
    if template.eos:
        tokenizer.eos_token = template.eos


def make_room(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, needed: int, seed: int) -> None:
    """Resize a model's embeddings to `needed` ids and set its end-of-sequence token, in place.

    The end-of-sequence token is the tokenizer's. Embeddings of the template's new tokens are drawn around the mean of
    the others, as transformers does, from the seed. That includes tokens for which the model has rows already, which
    nothing has trained.
    """
    size = embedding_rows(model)
    if needed > size:
        model.resize_token_embeddings(needed, mean_resizing=False)
    if new := sorted({*getattr(tokenizer, NEW_TOKENS, ()), *range(size, needed)}):
        known = torch.tensor(sorted(set(tokenizer.get_vocab().values()) - set(new)))
        generator = torch.Generator().manual_seed(seed)
        both = (model.get_input_embeddings(), model.get_output_embeddings())
        layers = {id(one.weight): one for one in both if one is not None}
        with torch.no_grad():
            for layer in layers.values():  # a single one if they are tied
                draw_rows(layer.weight, known, new, generator)  # type: ignore[arg-type]
                if isinstance(bias := getattr(layer, "bias", None), torch.Tensor):
                    bias[new] = bias[known.to(bias.device)].mean()
        setattr(model, NEW_TOKENS, new)
    end = tokenizer.eos_token_id
    own = getattr(model.generation_config, "eos_token_id", None)
    before = own if isinstance(own, list) else [] if own is None else [own]
    model.config.eos_token_id = end
    if model.generation_config is not None:
        model.generation_config.eos_token_id = [end, *(id for id in before if id != end)]


def draw_rows(weight: torch.Tensor, known: torch.Tensor, new: list[int], generator: torch.Generator) -> None:
    """Draw rows of a matrix, in place, from a normal distribution fitted to the known rows.

    The mean is that of the known rows, the covariance is `SPREAD` times theirs. A weighted sum of the known rows'
    deviations, with normal weights, has that covariance.

    Args:
        weight: (V, D) matrix.
        known: Indices of the known rows.
        new: Indices of the rows to draw.
        generator: Source of the normal weights.
    """
    parts = [part.to(weight.device) for part in known.split(ROWS)]
    mean = torch.stack([weight[part].float().sum(dim=0) for part in parts]).sum(dim=0) / len(known)
    noise = torch.zeros(len(new), weight.shape[1], device=weight.device)
    for part in parts:
        normal = torch.randn(len(new), len(part), generator=generator).to(weight.device)
        noise += normal @ (weight[part].float() - mean)
    weight[new] = (mean + noise * math.sqrt(SPREAD / len(known))).to(weight.dtype)

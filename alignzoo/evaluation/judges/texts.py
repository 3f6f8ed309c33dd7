"""A prompt and a reply as a classifier reads them: one text or a pair, its tokens, and batches that change nothing."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from alignzoo.data.boundary import BoundaryTokenizer
from alignzoo.data.chat_template import ChatTemplate, answer_message
from alignzoo.interfaces.judge import Prompt
from alignzoo.interfaces.rows import plain_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Encoded = dict[str, list[int]]
"""What a tokenizer makes of one text: `input_ids`, and whatever has as many entries."""


class Text(NamedTuple):
    """What is tokenized: a text, or two of them."""

    first: str
    second: str | None = None
    templated: bool = False
    """Whether a chat template has put the special tokens in."""


def as_text(
    prompt: Prompt | None, reply: str, tokenizer: PreTrainedTokenizerBase, *, pair: bool, end: bool,
    after_turn: bool = False,
) -> Text:  # fmt: skip
    """A chat by the tokenizer's template, if it has one; else the prompt's text and the reply, a space between them.

    A chat is written as training reads it, up to the token that ends the last turn (`after_turn`: as far as the
    template writes). `end` closes what no template
    closes with the end-of-sequence token. Without a prompt it is the reply alone.
    """
    eos = str(tokenizer.eos_token or "")
    ended = reply + eos if end and not (eos and reply.endswith(eos)) else reply
    if prompt is None:
        return Text(ended)
    if not isinstance(prompt, str):
        if tokenizer.chat_template and not pair:
            template = ChatTemplate(tokenizer, whole_turns=after_turn)
            return Text(template.render_chat(prompt, answer_message(reply)).text, templated=True)
        prompt = "\n\n".join(map(plain_text, prompt)) + ("" if pair else "\n\n")
    if pair:
        return Text(prompt, ended)
    # Samples are stripped, and their prompts end in "Assistant:"; what models are trained on has a space there.
    touching = prompt != "" and not prompt[-1].isspace() and not reply[:1].isspace()
    return Text(prompt + " " * touching + ended)


def read(texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, limit: int) -> list[Encoded]:
    """Their tokens, at most `limit` each, special tokens once as in training. What is over is cut at the beginning of
    a text, and a warning says so."""
    found, cut, reader = [], 0, BoundaryTokenizer(tokenizer)
    for text in texts:
        options: dict[str, Any] = {"add_special_tokens": not text.templated, "verbose": False}
        encoded = _once(dict(tokenizer(text.first, text.second, **options)), text, reader)
        over = len(encoded["input_ids"]) - limit
        if over > 0 and text.templated:
            encoded = {name: _cut(values, encoded["input_ids"], over, tokenizer) for name, values in encoded.items()}
        elif over > 0:
            side, tokenizer.truncation_side = tokenizer.truncation_side, "left"
            encoded = dict(tokenizer(text.first, text.second, **options, truncation=True, max_length=limit))
            tokenizer.truncation_side = side
            encoded = _once(encoded, text, reader)
        cut += over > 0
        found.append(encoded)
    if cut:
        what = f"{cut} of {len(texts)} texts have more than {limit} tokens; their beginning is not read"
        warnings.warn(what, stacklevel=3)
    return found


def _once(encoded: Encoded, text: Text, reader: BoundaryTokenizer) -> Encoded:
    """Without the BOS and EOS that the text and the tokenizer both put there."""
    if text.templated:
        return encoded
    size = len(encoded["input_ids"])
    ids, first = reader.deduplicate(encoded["input_ids"])
    return {name: values[first : first + len(ids)] for name, values in encoded.items()} if len(ids) < size else encoded


def _cut(values: list[int], ids: list[int], over: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Without `over` of the first values; BOS stays, as in training."""
    kept = int(ids[:1] == [tokenizer.bos_token_id])
    return values[:kept] + values[kept + over :]


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Indices of texts of like length, the longest first, in batches of up to `budget` token slots."""
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > budget:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def outputs(texts: Sequence[Encoded], model: PreTrainedModel) -> Tensor:
    """(B, labels) in float64: what the model makes of a batch, padded on the right.

    Decoders read a text at its last token that is not their padding token, and refuse a batch when they have none.
    Such a one is lent a token that no text of the batch has: what it reads is then each text's own last token. (There
    always is one: no text has all bytes in it.)
    """
    import torch

    config = model.config.get_text_config()
    own = getattr(config, "pad_token_id", None)
    here = {token for text in texts for token in text["input_ids"]}
    padding = next(token for token in range(len(here) + 1) if token not in here) if own is None else own
    width = max(len(text["input_ids"]) for text in texts)
    fill = {"input_ids": padding}
    accepted = inspect.signature(model.forward).parameters
    inputs = {
        name: torch.tensor([text[name] + [fill.get(name, 0)] * (width - len(text[name])) for text in texts])
        for name in texts[0]
        if name in accepted
    }
    config.pad_token_id = padding
    try:
        found: Tensor = model(**{name: value.to(model.device) for name, value in inputs.items()}).logits
    finally:
        config.pad_token_id = own
    return found.double()

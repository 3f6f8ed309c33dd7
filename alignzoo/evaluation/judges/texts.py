"""Texts of a prompt and a reply for a classifier: tokens and batches."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from alignzoo.core.door import in_child
from alignzoo.data.boundary import BoundaryTokenizer, place_of
from alignzoo.data.chat_template import ChatTemplate, answer_message
from alignzoo.data.tokenize_pipeline import CHARACTERS_A_SECOND, SECONDS
from alignzoo.interfaces.judge import Prompt
from alignzoo.interfaces.rows import plain_text

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Encoded = dict[str, list[int]]
"""Token ids of one text as `input_ids`, and other entries of the same length."""


class Text(NamedTuple):
    """A text to tokenize, or a pair of them."""

    first: str
    second: str | None = None
    templated: bool = False
    """True if a chat template has added the special tokens."""


def as_text(
    prompt: Prompt | None, reply: str, tokenizer: PreTrainedTokenizerBase, *, pair: bool, end: bool,
    after_turn: bool = False,
) -> Text:  # fmt: skip
    """Return a chat rendered by the tokenizer's template, or else prompt and reply as text.

    Plain texts have a space between them. Without a prompt the text is the reply alone.

    Args:
        prompt: Text, chat or None.
        reply: The reply.
        tokenizer: Tokenizer with or without a chat template.
        pair: Return two texts, as cross-encoders take them.
        end: Close a text without template with the end-of-sequence token.
        after_turn: Keep what the template writes after the end of the last turn, which training leaves out.
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
    # Sampled replies are stripped and prompts end in "Assistant:", while training data has a space between them.
    touching = prompt != "" and not prompt[-1].isspace() and not reply[:1].isspace()
    return Text(prompt + " " * touching + ended)


def read(
    make: Callable[[], Sequence[Text]], tokenizer: PreTrainedTokenizerBase, limit: int, size: int
) -> list[Encoded]:
    """Return the tokens of texts, at most `limit` each, with special tokens once.

    Longer texts lose their beginning, with a warning. Chat template and tokenizer may make much of little text, so they
    run in a child with limits.

    Args:
        make: Makes the texts.
        tokenizer: The judge's tokenizer.
        limit: Tokens of a text.
        size: Characters of all prompts and replies, about.

    Raises:
        BadFile: They fail, or take too long or too much memory.
    """
    found, cut = in_child(
        place_of(tokenizer), lambda: _read(make(), tokenizer, limit), what="the tokenizer", doing="tokenizing replies",
        seconds=SECONDS + size / CHARACTERS_A_SECOND,
    )  # fmt: skip
    if cut:
        message = f"{cut} of {len(found)} texts have more than {limit} tokens; their beginning is cut off"
        warnings.warn(message, stacklevel=3)
    return list(found)


def _read(texts: Sequence[Text], tokenizer: PreTrainedTokenizerBase, limit: int) -> tuple[list[Encoded], int]:
    """Return the tokens of the texts, and the number of those that were cut."""
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
    return found, cut


def _once(encoded: Encoded, text: Text, reader: BoundaryTokenizer) -> Encoded:
    """Remove a BOS or EOS that both the text and the tokenizer have added."""
    if text.templated:
        return encoded
    size = len(encoded["input_ids"])
    ids, first = reader.deduplicate(encoded["input_ids"])
    return {name: values[first : first + len(ids)] for name, values in encoded.items()} if len(ids) < size else encoded


def _cut(values: list[int], ids: list[int], over: int, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Remove the first `over` values after a BOS, as training does."""
    kept = int(ids[:1] == [tokenizer.bos_token_id])
    return values[:kept] + values[kept + over :]


def outputs(texts: Sequence[Encoded], model: PreTrainedModel) -> Tensor:
    """Return the model's outputs of a right-padded batch, (B, labels) in float64.

    Decoders read a text at its last token other than padding, and need a padding token for a batch. A model without one
    temporarily gets a token that no text of the batch contains.
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

"""A tokenizer of one token a byte, so that lengths in tests can be counted by eye."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(
    *, prepends_bos: bool = False, eos: bool = True, template: str | None = None
) -> PreTrainedTokenizerFast:
    """One token a byte; `<s>`, `</s>` and ChatML's two marks are special."""
    specials = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(specials + alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(specials)
    if prepends_bos:
        tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    marks = {"eos_token": "</s>"} if eos else {}
    result = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", **marks)
    result.chat_template = template
    return result

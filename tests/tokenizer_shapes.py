"""Tiny tokenizers of the shapes that models come with, each made here, and chat templates of the known kinds."""

from __future__ import annotations

from collections.abc import Callable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, CanineTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!'\"<>/|_-{}[]()=+\n"
WORDS = ["user", "assistant", "tool", "Yes", "No", "The", "sea", "is", "blue", "think", "call", "fjord", "What", "a"]
GPT4 = r"'s|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _merged(alphabet: list[str], words: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A BPE vocabulary with every word, built from its letters from the left."""
    vocabulary = {word: n for n, word in enumerate([*SPECIAL, *alphabet])}
    merges = []
    for word in words:
        for n in range(1, len(word)):
            pair = (word[:n], word[n])
            if pair not in merges:
                merges.append(pair)
            vocabulary.setdefault(word[: n + 1], len(vocabulary))
    return vocabulary, merges


def _wrapped(tokenizer: Tokenizer, bos: bool = False, eos: bool = False, **more) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(SPECIAL)
    if bos or eos:
        around = f"{'<s> ' * bos}$A{' </s>' * eos}"
        own = processors.TemplateProcessing(single=around, special_tokens=[("<s>", 1), ("</s>", 2)])
        before = tokenizer.post_processor
        tokenizer.post_processor = own if before is None else processors.Sequence([before, own])
    marks = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | more
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **marks)


def byte_level(bos=False, eos=False, prefix=False, trim=None, split=None, normal=None, **more):
    extra = ["Ġ" + word for word in WORDS] + [".Ċ", "ĊĊ", ":Ċ", "ee", "ĠĠ", "Ġ."]
    vocabulary, merges = _merged(sorted(pre_tokenizers.ByteLevel.alphabet()), [*extra, *WORDS])
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=split is None)
    if split:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), bytes_])
    else:
        tokenizer.pre_tokenizer = bytes_
    tokenizer.normalizer = normal
    tokenizer.decoder = decoders.ByteLevel()
    if trim is not None:
        tokenizer.post_processor = processors.ByteLevel(add_prefix_space=prefix, trim_offsets=trim)
    return _wrapped(tokenizer, bos, eos, **more)


def sentence_piece(bos=True, eos=False, prefix=True, merged_spaces=False):
    """As Llama-2's and Mistral's: a normalizer writes ▁ for spaces and before the text; bytes for what is unknown."""
    alphabet = [*LETTERS.replace("\n", ""), "▁", *(f"<0x{n:02X}>" for n in range(256))]
    vocabulary, merges = _merged(alphabet, [*("▁" + word for word in WORDS), *WORDS, *["▁▁"] * merged_spaces])
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(steps + [decoders.Strip(" ", 1, 0)] * prefix)
    return _wrapped(tokenizer, bos, eos)


def metaspace(scheme: str, split: bool = True, bos: bool = False):
    vocabulary, merges = _merged([*LETTERS, "▁", "é"], [*("▁" + word for word in WORDS), *WORDS])
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=split)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme, split=split)
    return _wrapped(tokenizer, bos)


def unigram(bos=False, eos=True):
    pieces = [*SPECIAL, *LETTERS, "▁", *WORDS, *("▁" + word for word in WORDS)]
    scored = [(piece, 0.0 if n < len(SPECIAL) else -8.0 + len(piece)) for n, piece in enumerate(dict.fromkeys(pieces))]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return _wrapped(tokenizer, bos, eos)


def word_piece(lower: bool):
    pieces = [*SPECIAL, "[CLS]", "[SEP]", *LETTERS, *("##" + one for one in LETTERS), *WORDS, *map(str.lower, WORDS)]
    vocabulary = {piece: n for n, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [(word, vocabulary[word]) for word in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.BertProcessing(ends[1], ends[0])
    return _wrapped(tokenizer, bos_token="[CLS]", eos_token="[SEP]", cls_token="[CLS]", sep_token="[SEP]")


def swallowing():
    """Phi-3's way: the marks of turns take the white space behind them."""
    from tokenizers import AddedToken

    tokenizer = byte_level()
    tokenizer.add_tokens([AddedToken(mark, rstrip=True, special=True) for mark in ("<|im_start|>", "<|im_end|>")])
    return tokenizer


def with_holes():
    """Ids that leave gaps: `len` is far below the highest."""
    vocabulary, merges = _merged(sorted(pre_tokenizers.ByteLevel.alphabet()), WORDS)
    tokenizer = Tokenizer(models.BPE({word: n if n < 9 else 2 * n for word, n in vocabulary.items()}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _wrapped(tokenizer)


def slow(kind: type, **marks):
    tokenizer = kind(**marks)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


SHAPES: dict[str, Callable[[], PreTrainedTokenizerBase]] = {
    "byte-level": byte_level,
    "byte-level, BOS": lambda: byte_level(bos=True),
    "byte-level, BOS and EOS": lambda: byte_level(bos=True, eos=True),
    "byte-level, prefix space": lambda: byte_level(prefix=True, trim=True),
    "byte-level, trimmed offsets, BOS (Llama 3)": lambda: byte_level(bos=True, trim=True, split=GPT4),
    "byte-level, NFC (Qwen)": lambda: byte_level(trim=False, split=GPT4, normal=normalizers.NFC()),
    "byte-level, BOS is EOS": lambda: byte_level(trim=True, bos_token="</s>"),
    "byte-level, marks take white space (Phi-3)": swallowing,
    "byte-level, ids with gaps": with_holes,
    "SentencePiece (Llama 2)": sentence_piece,
    "SentencePiece, BOS and EOS": lambda: sentence_piece(eos=True),
    "SentencePiece, no prefix space (Gemma)": lambda: sentence_piece(prefix=False, merged_spaces=True),
    "SentencePiece, neither": lambda: sentence_piece(bos=False, prefix=False),
    "Metaspace, always": lambda: metaspace("always"),
    "Metaspace, first": lambda: metaspace("first", split=False, bos=True),
    "Metaspace, never": lambda: metaspace("never"),
    "Unigram, EOS (T5)": unigram,
    "WordPiece": lambda: word_piece(lower=False),
    "WordPiece, lower case": lambda: word_piece(lower=True),
    "slow, bytes (ByT5)": lambda: slow(ByT5Tokenizer),
    "slow, characters (Canine)": lambda: slow(CanineTokenizer),
}

CHATML = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.name %}[{{ m.name }}] {% endif %}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}<call>{{ call.function | tojson }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
OPENS = (
    "{{ bos_token or '' }}{% for m in messages %}<|im_start|>{{ m.role }}: "
    "{{ m.content.split('</think>')[-1] | trim if m.role == 'assistant' else m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant: <think>\n{% endif %}"
)
"""As DeepSeek-R1's: thoughts of stored turns are cut, and the generation prompt begins one."""

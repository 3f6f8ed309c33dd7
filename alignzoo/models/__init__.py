"""Load weights and tokenizers, add adapters, and generate text."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "adapters": ["add_adapters", "disabled_adapters"],
        "fingerprint": ["remote_code_digests", "weights_fingerprint"],
        "generation": ["Reply", "generate_replies"],
        "loading": ["from_config", "load_policy", "load_trained", "pretrained"],
        "logits": ["token_statistics"],
        "tokenizers": ["load_tokenizer", "pretrained_tokenizer", "train_tokenizer"],
    },
)

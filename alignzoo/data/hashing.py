"""Numbers that depend on a text alone, for choices that no order of rows changes."""

from __future__ import annotations

from hashlib import blake2b


def uniform_hash(text: str) -> float:
    """Return a number in [0, 1) that depends on the text alone."""
    return int.from_bytes(blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest(), "big") / 2**64

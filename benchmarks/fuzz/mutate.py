"""Mutations of trees, text, bytes and tensor files, each close to what it was, from a seeded generator."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from random import Random
from typing import Any

UNICODE = ["", " ", "\x00", "\x1b[31m", "\ud800", "\ufeff", "é" * 50, "\u2028", "漢字", "🙂", "\u202ex", "\r\n", "a\tb", "'", '"', "\\"]  # fmt: skip
NUMBERS = [
    0, -1, 1, 2, 7, 0.5, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf"), 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**32,
    2**53, 2**63, 2**64, 10**9, 10**30, -(10**30),
]  # fmt: skip
WORDS = [
    "1e5", "null", "~", ".", "..", "./x", "x/y", "/nowhere/x", "../x", "../../etc/passwd", "toy", "dpo", "nothing", "*", "[", "{}",
    "a=b", "name", "http://u@h/", "%s", "{x}", "float16", "cuda", "auto", "[/bold]", "sk-" * 40, "x" * 300, "x" * 5000, "./" + "y" * 300,
]  # fmt: skip
NESTED = [
    None, True, False, [], {}, [[]], [None], [1, [2, [3]]], {"": 1}, {"name": None}, {"name": "dpo"}, {"name": 1}, {"name": ["x"]},
    [{"name": "sft"}], {"a": {"b": {"c": {}}}}, ["x"] * 300, {"name": "dpo", "beta": "x"},
]  # fmt: skip
ODD: list[Any] = [*NESTED, *NUMBERS, *WORDS, *UNICODE]
TOKENS = [
    b"\t", b"&a ", b"*a", b"!!python/name:os.system ", b"<<: ", b"{", b"}", b"[", b"]", b": ", b"- ", b"\xff", b"\xc3", b"\x00",
    b"\xef\xbb\xbf", b"%YAML 9.9\n", b"---\n", b"...", b"|", b">", b"'", b'"', b"#", b"? ", b"\r", b"0x", b"9" * 5000, b"[" * 60,
    b"&a [*a]", b"\xed\xa0\x80", b"1:2:3", b"2020-01-01", b"=", b"`", b"@", b"!!binary x", b"\n", b",", b"\xff\xff\xff\xff", b"\x00" * 8,
    b"\xff\xff\xff\x7f",
]  # fmt: skip
WHOLE = [
    b"", b"\n", b"\xef\xbb\xbf", b"null", b"[]", b"{}", b"3", b'"x"', b"[" * 100_000, b'{"a":' * 5000, b"\x1f\x8b", b"PAR1", b"ARROW1\0\0",
    b"\x00" * 100, b"\xff" * 16, b"a: &a [*a]",
]  # fmt: skip

Place = tuple[Any, ...]


def places(tree: Any, at: Place = ()) -> list[Place]:
    """The keys and indices that lead to every value of a tree."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in items for place in ((*at, key), *places(value, (*at, key)))]


def value_at(tree: Any, place: Place) -> Any:
    for step in place:
        tree = tree[step]
    return tree


def leaf(rng: Random, known: Sequence[Any] = ()) -> Any:
    """Something that stands in such a tree elsewhere, something odd, or something drawn."""
    kind = rng.random()
    if known and kind < 0.4:
        return copy.deepcopy(rng.choice(known))
    if kind < 0.9:
        return copy.deepcopy(rng.choice(ODD))
    drawn = [
        rng.randint(-10, 10**6),
        rng.uniform(-2, 2),
        "".join(map(chr, rng.choices(range(32, 500), k=rng.randint(0, 12)))),
    ]
    return rng.choice([*drawn, [copy.deepcopy(rng.choice(ODD)) for _ in range(3)]])


def mutated(
    rng: Random, tree: Any, known: Sequence[Any] = (), keys: Sequence[str] = ("extra", "name", "path", "")
) -> Any:
    """A tree with one to three changes: a value dropped, renamed, replaced, moved, wrapped, scaled, repeated or added."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        found = places(tree)
        if not found:
            return leaf(rng, known)
        *way, key = rng.choice(found)
        inside, old = value_at(tree, way), value_at(tree, (*way, key))
        kind = rng.choice(["drop", "rename", "replace", "replace", "wrap", "add", "move", "near", "repeat", "retype"])
        if kind == "drop":
            del inside[key]
        elif kind == "rename" and isinstance(inside, dict):
            word, cut = str(key), rng.randint(0, len(str(key)))
            names = [word[:cut] + word[cut + 1 :], word[:cut] + "x" + word[cut:], word.upper(), *UNICODE]
            inside[rng.choice(names)] = inside.pop(key)
        elif kind == "wrap":
            inside[key] = rng.choice([[old], {"x": old}, [old, old]])
        elif kind == "move":
            inside[key] = copy.deepcopy(value_at(tree, rng.choice(found)))
        elif kind == "add" and isinstance(inside, dict):
            inside[rng.choice(list(keys))] = leaf(rng, known)
        elif kind == "near" and isinstance(old, int | float):
            inside[key] = rng.choice([old + 1, old - 1, -old, old * 2, old * 1000, float(old), str(old), old * 2**20])
        elif kind == "repeat" and isinstance(old, str | list):
            inside[key] = old * rng.choice([0, 2, 3, 1000])
        elif kind == "retype":
            inside[key] = rng.choice([str(old)[:1000], [old], isinstance(old, str) and len(old), {"0": old}])
        else:
            inside[key] = leaf(rng, known)
    return tree


def broken(rng: Random, raw: bytes) -> bytes:
    """Bytes with one to four pieces replaced, and a quarter of the time cut off."""
    for _ in range(rng.choice([1, 1, 2, 4])):
        at, much = rng.randint(0, len(raw)), rng.randint(0, 8)
        piece = rng.choice([b"", *TOKENS, rng.randbytes(rng.randint(1, 4))])
        raw = raw[:at] + piece + raw[at + (len(piece) if rng.random() < 0.5 else much) :]
    return raw[: rng.choice([len(raw), len(raw), len(raw), rng.randint(0, len(raw))])]


def flipped(rng: Random, raw: bytes) -> bytes:
    """Bytes of the same length with a few of them changed, alone or as 32-bit words."""
    changed = bytearray(raw)
    for _ in range(rng.choice([1, 1, 2, 8])):
        at = rng.randrange(max(1, len(changed)))
        if rng.random() < 0.5 or len(changed) < 8:
            changed[at : at + 1] = bytes([rng.randrange(256)])
        else:
            at -= at % 4
            word = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)])
            changed[at : at + 4] = word.to_bytes(4, "little")
    return bytes(changed[: len(raw)])


def json_bytes(tree: Any) -> bytes:
    return json.dumps(tree, ensure_ascii=False, indent=1).encode("utf-8", "surrogatepass")


def mutated_json(rng: Random, raw: bytes, known: Sequence[Any] = ()) -> bytes:
    """A JSON file, changed as a tree, as text, or as a whole."""
    kind = rng.random()
    if kind < 0.75:
        return json_bytes(mutated(rng, json.loads(raw), known))
    return broken(rng, raw) if kind < 0.95 else rng.choice(WHOLE)


def mutated_lines(rng: Random, raw: bytes) -> bytes:
    """A file of JSON lines: a line changed as a tree or as text, dropped or repeated."""
    lines = raw.split(b"\n")
    at = rng.randrange(len(lines))
    if rng.random() < 0.7 and lines[at]:
        lines[at] = json.dumps(mutated(rng, json.loads(lines[at])), ensure_ascii=rng.random() < 0.5).encode(
            "utf-8", "surrogatepass"
        )
        return b"\n".join(lines)
    return rng.choice([broken(rng, raw), b"\n".join(lines[:at] + lines[at + 1 :]), raw * 2, raw[:-3]])


def mutated_safetensors(rng: Random, raw: bytes) -> bytes:
    """A tensor file whose header, length or numbers are changed."""
    size = int.from_bytes(raw[:8], "little")
    header, body = raw[8 : 8 + size], raw[8 + size :]
    kind = rng.choice(["tree", "tree", "text", "length", "cut", "body", "more"])
    if kind == "tree":
        types = ["F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F64", "C64", "X"]
        header = json.dumps(mutated(rng, json.loads(header), types)).encode("utf-8", "surrogatepass")
    elif kind == "text":
        header = broken(rng, header)
    elif kind == "body":
        numbers = rng.choice([b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\xff\xff\x7f\x7f", rng.randbytes(4)])
        at = rng.randrange(max(1, len(body) - 4))
        body = body[:at] + numbers + body[at + 4 :]
    elif kind == "cut":
        body = body[: rng.randint(0, len(body))]
    elif kind == "more":
        body += rng.randbytes(16)
    length = len(header) if kind != "length" else rng.choice([0, 1, len(raw), 2**20, 2**32, 2**63, 2**64 - 1])
    return length.to_bytes(8, "little") + header + body


def mutated_yaml(rng: Random, raw: bytes) -> bytes:
    """A YAML file, changed as a tree or as text."""
    import yaml

    if rng.random() < 0.6:
        return yaml.safe_dump(mutated(rng, yaml.safe_load(raw)), allow_unicode=True, sort_keys=False).encode(
            "utf-8", "surrogatepass"
        )
    return broken(rng, raw)

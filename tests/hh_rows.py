"""Rows in HH's format, as short as they can be."""

from __future__ import annotations


def dialogue(*turns: str) -> str:
    """Turns of a human and an assistant, in turn, in HH's format."""
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))


def hh_records(count: int, name: str = "question") -> list[dict[str, str]]:
    return [
        {"chosen": dialogue(f"{name} {i}", f"good {i}"), "rejected": dialogue(f"{name} {i}", f"bad {i}")}
        for i in range(count)
    ]

"""The memory of a run beside what the device has, as JSON values and as a small table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alignzoo.training.memory_model import Memory


def memory_plan(memory: Memory, device: str) -> dict[str, Any]:
    """Return the memory of a run as JSON values, in bytes, beside that of a device."""
    from alignzoo.training.model_preflight import memory_there

    there, words = memory_there(device)
    return {
        "peak": memory.peak, "when": memory.moment, "moments": memory.moments, "parts": memory.parts,
        "notes": {name: memory.notes[name] for name in memory.parts if name in memory.notes},
        "complete": not memory.uncounted, "available": there, "device": words, "fits": memory.peak <= there,
    }  # fmt: skip


def memory_lines(plan: dict[str, Any] | None) -> list[str]:
    """Return the table of a plan's memory."""
    from alignzoo.training.number_types import gib

    if plan is None:
        return ["not known: the model source has no config that can be read without its weights"]
    least = "" if plan["complete"] else "at least "
    lines = [f"{least}{gib(plan['peak'])} at the peak ({plan['when']}) of one process; {plan['device']}"]
    for name, size in plan["parts"].items():
        shown = "not counted" if name == "activations" and not plan["complete"] else gib(size)
        lines.append(f"  {name:<16}{shown:>12}  {plan['notes'].get(name, '')}".rstrip())
    if not plan["fits"]:
        lines.append(f"warning: that is more than the {gib(plan['available'])} there; {_advice(plan)}")
    return lines


def _advice(plan: dict[str, Any]) -> str:
    """Return what makes a run smaller: activations first if they are the larger part."""
    parts = plan["parts"]
    moving = parts["activations"] + parts["logits"]
    if plan["peak"] - moving < plan["available"]:
        return "a smaller train.micro_batch_tokens or train.gradient_checkpointing=true changes no result"
    return "model.lora trains less, model.dtype=bfloat16 halves the weights, and FSDP shares them among processes"

"""The gradient of each optimizer step of a process, written to files by parameter name."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.optim.optimizer import register_optimizer_step_pre_hook


class Gradients:
    """Writes the gradients that each step of any optimizer is about to use."""

    def __init__(self):
        self.model: torch.nn.Module | None = None
        register_optimizer_step_pre_hook(self._write)

    def begin(self, stem: Path) -> list[str]:
        """Return the list that the paths of the steps from now on are added to."""
        stem.parent.mkdir(parents=True, exist_ok=True)
        self.stem, self.files = stem, []
        return self.files

    def _write(self, *_) -> None:
        path = f"{self.stem}.{len(self.files)}.safetensors"
        known = {name: one.grad for name, one in self.model.named_parameters() if one.grad is not None}
        save_file({name: grad.detach().float().clone() for name, grad in known.items()}, path)
        self.files.append(path)

"""TRL's side, run by an interpreter that has TRL and not alignzoo: the losses and seconds of each step.

Run as: python trl_steps.py WORKLOAD.json OUT.json
`settings` of the workload are DPOConfig's; TRL's defaults hold otherwise. `model_settings` go to from_pretrained. Token ids
are given in their order, and nothing is written, so that both sides do the same work.
"""

import json
import os
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from process import Clock
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer
from trl_timing import Timing


class Recording(DPOTrainer):
    """DPOTrainer on token ids that are given, in their order, with each step's loss kept in full precision."""

    asked: dict
    losses: list
    reference_seconds = 0.0

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _get_train_sampler(self, *args, **kwargs):
        own = self.asked.get("own_order")
        return super()._get_train_sampler(*args, **kwargs) if own else SequentialSampler(self.train_dataset)

    def _precompute_ref_logps(self, *args, **kwargs):
        began = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds += time.perf_counter() - began
        return found

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))  # of one micro-batch, divided by how many there are
        return loss


def main(asked: dict, out: Path) -> None:
    torch.set_num_threads(asked["threads"])
    clock = Clock(asked["launched"])
    settings = {
        "output_dir": str(out.with_suffix(".trainer")), "max_steps": asked["steps"],
        "per_device_train_batch_size": asked["batch_size"], "use_cpu": True, "save_strategy": "no", "report_to": [],
        "disable_tqdm": True, "remove_unused_columns": False, "lr_scheduler_type": "constant", "warmup_steps": 0,
    }  # fmt: skip
    config = DPOConfig(**(settings | asked["settings"]))
    loading = {"dtype": torch.float32} | asked.get("model_settings", {})
    model = AutoModelForCausalLM.from_pretrained(asked["model"], **loading)
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    pairs = asked["pairs"]
    if asked.get("own_order"):
        pairs = [pair | {"length": max(len(pair["chosen_ids"]), len(pair["rejected_ids"])) + len(pair["prompt_ids"])}
                 for pair in pairs]  # fmt: skip
    Recording.asked, Recording.losses = asked, []
    trainer = Recording(
        model=model, args=config, processing_class=tokenizer, train_dataset=Dataset.from_list(pairs),
        callbacks=[Timing(clock)],
    )  # fmt: skip
    trainer.train()
    import transformers
    import trl

    micro = len(trainer.losses) // asked["steps"]
    losses = [sum(trainer.losses[i : i + micro]) for i in range(0, len(trainer.losses), micro)]
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    out.write_text(json.dumps(clock.figures() | {
        "losses": losses, "reference_seconds": trainer.reference_seconds, "reference_pairs": len(pairs),
        "references_seconds": trainer.reference_seconds,
        "gpu_peak_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_initialized() else 0,
        "versions": versions, "tunables": os.environ.get("GLIBC_TUNABLES"),
    }))  # fmt: skip


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

"""TRL's side of SFT, run by an interpreter that has TRL and not alignzoo: the losses and seconds of each step of an epoch.

Run as: python trl_sft_steps.py WORKLOAD.json OUT.json
`settings` of the workload are SFTConfig's; TRL's defaults hold otherwise. TRL tokenizes the messages itself; they are taken
in their order, and nothing is written, so that both sides do the same work.
"""

import json
import os
import sys
from pathlib import Path

import torch
from datasets import load_dataset
from process import Clock
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
from trl_timing import Timing


class Recording(SFTTrainer):
    """SFTTrainer that takes the rows in their order, and keeps each step's loss in full precision."""

    losses: list

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        loss = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))  # a micro-batch's part of the mean over the tokens of the step
        return loss


def main(asked: dict, out: Path) -> None:
    torch.set_num_threads(asked["threads"])
    clock = Clock(asked["launched"])
    settings = {
        "output_dir": str(out.with_suffix(".trainer")), "num_train_epochs": 1, "use_cpu": True, "save_strategy": "no",
        "report_to": [], "disable_tqdm": True, "lr_scheduler_type": "constant", "warmup_steps": 0, "assistant_only_loss": True,
    }  # fmt: skip
    config = SFTConfig(**(settings | asked["settings"]))
    loading = {"dtype": torch.float32} | asked.get("model_settings", {})
    model = AutoModelForCausalLM.from_pretrained(asked["model"], **loading)
    tokenizer = AutoTokenizer.from_pretrained(asked["model"])
    dataset = load_dataset("json", data_files=asked["messages"], split="train")
    Recording.losses = []
    trainer = Recording(
        model=model, args=config, processing_class=tokenizer, train_dataset=dataset, callbacks=[Timing(clock)]
    )
    trainer.train()
    import transformers
    import trl

    micro = config.gradient_accumulation_steps
    losses = [sum(Recording.losses[i : i + micro]) for i in range(0, len(Recording.losses), micro)]
    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    sizes = [len(ids) for ids in trainer.train_dataset["input_ids"]]
    out.write_text(json.dumps(clock.figures() | {
        "losses": losses, "sequences": len(sizes), "tokens": sum(sizes), "versions": versions,
        "tunables": os.environ.get("GLIBC_TUNABLES"),
    }))  # fmt: skip


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

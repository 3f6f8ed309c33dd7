"""TRL's side of trl_agreement.py, run by an interpreter that has TRL and not alignzoo: losses and seconds of each step.

Run as: python trl_steps.py WORKLOAD.json OUT.json
"""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from torch.utils.data import SequentialSampler
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


class Recording(DPOTrainer):
    """DPOTrainer on token ids that are given, in their order, with each step's loss kept in full precision."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset

    def _get_train_sampler(self, *args, **kwargs):
        return SequentialSampler(self.train_dataset)

    def training_step(self, *args, **kwargs):
        began = time.perf_counter()
        loss = super().training_step(*args, **kwargs)
        self.losses.append(float(loss))
        self.seconds.append(time.perf_counter() - began)
        return loss


def main(workload: dict, out: Path) -> None:
    torch.set_num_threads(workload["threads"])
    model = AutoModelForCausalLM.from_pretrained(workload["model"], dtype=torch.float32)
    reference = AutoModelForCausalLM.from_pretrained(workload["model"], dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(workload["model"])
    config = DPOConfig(
        output_dir=str(out.with_suffix(".trainer")), loss_type=[workload["loss_type"]], beta=workload["beta"],
        learning_rate=workload["learning_rate"], optim="sgd", lr_scheduler_type="constant", warmup_steps=0,
        weight_decay=0.0, max_grad_norm=0.0, per_device_train_batch_size=workload["batch_size"],
        max_steps=workload["steps"], max_length=None, bf16=False, fp16=False, use_cpu=True, save_strategy="no",
        report_to=[], logging_steps=1, disable_dropout=True, gradient_checkpointing=False, seed=0,
        precompute_ref_log_probs=False, disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    Recording.losses, Recording.seconds = [], []
    trainer = Recording(
        model=model, ref_model=reference, args=config, processing_class=tokenizer,
        train_dataset=Dataset.from_list(workload["pairs"]),
    )  # fmt: skip
    trainer.train()
    import transformers
    import trl

    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    out.write_text(json.dumps({"losses": trainer.losses, "seconds": trainer.seconds, "versions": versions}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

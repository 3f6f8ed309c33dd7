"""One DPOTrainer run as a user of TRL writes it: from a JSONL file and a model folder to a trained model.

Run as: python trl_user.py WORKLOAD.json OUT.json
"""

import json
import sys
import time
from pathlib import Path

import torch
from datasets import load_dataset
from process import Clock
from trl import DPOConfig, DPOTrainer
from trl_timing import Timing


class Recording(DPOTrainer):
    """DPOTrainer that tells how long its reference pass was."""

    reference_seconds = 0.0

    def _precompute_ref_logps(self, *args, **kwargs):
        began = time.perf_counter()
        found = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds += time.perf_counter() - began
        return found


def main(asked: dict, out: Path) -> None:
    torch.set_num_threads(asked["threads"])
    clock = Clock(asked["launched"])
    config = DPOConfig(**asked["settings"], output_dir=str(out.with_suffix(".trainer")), use_cpu=True, report_to=[])
    data = load_dataset("json", data_files=asked["data"], split="train")
    trainer = Recording(model=asked["model"], args=config, train_dataset=data, callbacks=[Timing(clock)])
    trainer.train()
    trainer.save_model()
    import transformers
    import trl

    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    out.write_text(json.dumps(clock.figures() | {
        "references_seconds": trainer.reference_seconds, "pairs": len(data), "versions": versions,
        "log": trainer.state.log_history,
    }))  # fmt: skip


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

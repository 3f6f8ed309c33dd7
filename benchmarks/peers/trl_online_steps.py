"""TRL's side of an online step, run by an interpreter that has TRL and not alignzoo: GRPO or online DPO.

Run as: python trl_online_steps.py WORKLOAD.json OUT.json
`settings` of the workload are the trainer's config; TRL's defaults hold otherwise. A step is from its first micro-batch to
the end of the optimizer's step, with what is drawn for it. The reward is the share of vowels of a completion.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from process import Clock
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl_timing import Timing


def vowels(completions, **_):
    """Return the share of vowels of each completion."""
    return [sum(c in "aeiou" for c in text) / max(1, len(text)) for text in completions]


def main(asked: dict, out: Path) -> None:
    torch.set_num_threads(asked["threads"])
    clock = Clock(asked["launched"])
    if asked["trainer"] == "grpo":
        from trl import GRPOConfig as Config
        from trl import GRPOTrainer as Trainer
    else:
        from trl.experimental.online_dpo import OnlineDPOConfig as Config
        from trl.experimental.online_dpo import OnlineDPOTrainer as Trainer
    settings = {
        "output_dir": str(out.with_suffix(".trainer")), "max_steps": asked["steps"], "use_cpu": True,
        "save_strategy": "no", "report_to": [], "disable_tqdm": True, "lr_scheduler_type": "constant",
        "warmup_steps": 0, "learning_rate": 1e-6, "shuffle_dataset": False,
    }  # fmt: skip
    if asked["trainer"] != "grpo":
        settings.pop("shuffle_dataset")
    model = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32)
    more = {}
    if asked["trainer"] != "grpo":
        more["ref_model"] = AutoModelForCausalLM.from_pretrained(asked["model"], dtype=torch.float32)
    trainer = Trainer(
        model=model, args=Config(**(settings | asked["settings"])), reward_funcs=vowels,
        processing_class=AutoTokenizer.from_pretrained(asked["model"], padding_side="left"),
        train_dataset=Dataset.from_list([{"prompt": text} for text in asked["prompts"]]), callbacks=[Timing(clock)],
        **more,
    )  # fmt: skip
    trainer.train()
    import transformers
    import trl

    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    logs = [line for line in trainer.state.log_history if any("length" in key for key in line)]
    out.write_text(json.dumps(clock.figures() | {"versions": versions, "logs": logs[-1:]}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

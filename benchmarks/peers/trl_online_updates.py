"""TRL's side of the online agreement, run by an interpreter that has TRL and not alignzoo.

Run as: python trl_online_updates.py WORKLOAD.json OUT.json
Each case has a trainer, its settings, the prompts in their order, and the draws of each rollout with their rewards. The
trainer's own generation is replaced by those draws, and nothing else: rewards come from a reward function, and advantages,
log-probs, loss and update are the trainer's.
"""

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from gradients import Gradients
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

TRAINERS = {"grpo": (GRPOTrainer, GRPOConfig), "rloo": (RLOOTrainer, RLOOConfig)}


def replaying(base: type, completions: dict, tuple_of_two: bool) -> type:
    """Return a trainer that draws nothing, and has recorded completions in their order for each prompt.

    Args:
        base: TRL's trainer.
        completions: Token ids of a prompt -> those of its completions.
        tuple_of_two: The trainer's generation also returns log-probs, None without vLLM.
    """

    class Replaying(base):
        """TRL's trainer on recorded completions."""

        def _generate_single_turn(self, prompt_ids, *args, **kwargs):
            left = {prompt: iter(known) for prompt, known in completions.items()}
            found = [list(next(left[tuple(prompt)])) for prompt in prompt_ids]
            return (found, None) if tuple_of_two else found

        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            self.seen.append(float(loss.detach()))
            return loss

    Replaying.__name__ = base.__name__
    return Replaying


def main(asked: dict, out: Path) -> None:
    torch.set_num_threads(asked["threads"])
    gradients, found = Gradients(), {}
    for case, about in asked["cases"].items():
        base, config = TRAINERS[about["trainer"]]
        tokenizer = AutoTokenizer.from_pretrained(about["model"], padding_side="left")
        completions, rewards = {}, {}
        for rollout in about["rollouts"]:
            each = len(rollout["completions"]) // len(rollout["prompts"])
            for n, (ids, reward) in enumerate(zip(rollout["completions"], rollout["rewards"], strict=True)):
                prompt = rollout["prompts"][n // each]
                completions.setdefault(tuple(tokenizer(prompt)["input_ids"]), []).append(ids)
                rewards[prompt, tuple(ids)] = reward

        def recorded(prompts, completion_ids, rewards=rewards, **_):
            return [rewards[prompt, tuple(ids)] for prompt, ids in zip(prompts, completion_ids, strict=True)]

        model = AutoModelForCausalLM.from_pretrained(about["model"], dtype=torch.float32)
        settings = {
            "output_dir": str(out.with_suffix(".trainer")), "use_cpu": True, "save_strategy": "no", "report_to": [],
            "disable_tqdm": True, "lr_scheduler_type": "constant", "warmup_steps": 0, "shuffle_dataset": False,
            "bf16": False, "optim": "adamw_torch", "weight_decay": 0.0, "max_grad_norm": 0.0,
            "gradient_checkpointing": False, "disable_dropout": True,
        }  # fmt: skip
        trainer = replaying(base, completions, about["trainer"] == "grpo")(
            model=model, args=config(**(settings | about["settings"])), reward_funcs=recorded,
            processing_class=tokenizer, train_dataset=Dataset.from_list([{"prompt": one} for one in about["prompts"]]),
        )  # fmt: skip
        trainer.seen, gradients.model = [], trainer.model
        files = gradients.begin(out.parent / case)
        trainer.train()
        parts = about["settings"]["gradient_accumulation_steps"]
        # GRPO's loss is of one micro-batch already divided by their number; RLOO's is divided after it
        scale = 1 if about["trainer"] == "grpo" else 1 / parts
        losses = [scale * sum(trainer.seen[n : n + parts]) for n in range(0, len(trainer.seen), parts)]
        found[case] = {"losses": losses, "gradients": files}
    import transformers
    import trl

    versions = {"trl": trl.__version__, "transformers": transformers.__version__, "torch": torch.__version__}
    out.write_text(json.dumps({"cases": found, "versions": versions}))


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))

"""Keys of other trainers and their names here, for errors and for the documentation."""

from __future__ import annotations

from typing import NamedTuple

from alignzoo.recipe.optimizers import OPTIMIZERS


class Peer(NamedTuple):
    """A key of other trainers: our key, and what differs."""

    key: str
    note: str = ""


_BATCH = "rows of one optimizer step, over all devices and accumulated passes: the product of the three"
_LOSS = "`alignzoo list objectives` has the names"
_OPTIMIZER = " or ".join(", ".join(OPTIMIZERS).rsplit(", ", 1))
_BF16 = "`bfloat16`; `model.dtype` is the data type of the weights"
_LORA = "for example {r: 16, alpha: 32}"
_CACHED = "the reference's log-probs are computed once and cached, always"
_TERM = "a second term of the list: [{name: dpo}, {name: sft, weight: 0.2}]"
_PACKED = "`auto` chooses; `packed` has no padding"

PEERS: dict[str, Peer] = {
    # Names of transformers' TrainingArguments, which TRL, LLaMA-Factory and in part Axolotl use.
    "learning_rate": Peer("train.optimizer.learning_rate"),
    "lr": Peer("train.optimizer.learning_rate"),
    "optim": Peer("train.optimizer.name", _OPTIMIZER),
    "optimizer": Peer("train.optimizer.name", _OPTIMIZER),
    "weight_decay": Peer("train.optimizer.weight_decay"),
    "adam_beta1": Peer("train.optimizer.betas", "[0.9, 0.999]"),
    "adam_beta2": Peer("train.optimizer.betas", "[0.9, 0.999]"),
    "adam_epsilon": Peer("train.optimizer.eps"),
    "lr_scheduler_type": Peer("train.schedule.name"),
    "lr_scheduler": Peer("train.schedule.name"),
    "warmup_steps": Peer("train.schedule.warmup_steps"),
    "warmup_ratio": Peer("train.schedule.warmup_ratio"),
    "per_device_train_batch_size": Peer("train.batch_size", _BATCH),
    "gradient_accumulation_steps": Peer("train.batch_size", f"{_BATCH}; `train.micro_batch_tokens` limits one pass"),
    "micro_batch_size": Peer("train.batch_size", f"{_BATCH}; `train.micro_batch_tokens` limits one pass"),
    "auto_find_batch_size": Peer("train.micro_batch_tokens", "it is halved when memory runs out"),
    "num_train_epochs": Peer("train.epochs"),
    "num_epochs": Peer("train.epochs"),
    "max_steps": Peer("train.max_steps"),
    "max_grad_norm": Peer("train.max_grad_norm"),
    "gradient_clipping": Peer("train.max_grad_norm"),
    "gradient_checkpointing": Peer("train.gradient_checkpointing"),
    "torch_compile": Peer("train.compile"),
    "bf16": Peer("train.precision", _BF16),
    "fp16": Peer("train.precision", f"float32 or {_BF16}"),
    "torch_dtype": Peer("model.dtype"),
    "dtype": Peer("model.dtype"),
    "eval_steps": Peer("eval.every"),
    "save_steps": Peer("train.checkpoint_every"),
    "save_total_limit": Peer("train.keep_checkpoints"),
    "save_only_model": Peer("train.keep_optimizer", "false drops it once a run has finished"),
    "load_best_model_at_end": Peer("train.keep_best", "the figure's name, such as loss"),
    "metric_for_best_model": Peer("train.keep_best"),
    "greater_is_better": Peer("train.greater_is_better"),
    "early_stopping_patience": Peer("train.early_stopping.patience"),
    "early_stopping_threshold": Peer("train.early_stopping.min_delta"),
    "report_to": Peer("reporters"),
    "run_name": Peer("name"),
    "output_dir": Peer("name", "runs are in the folder of ALIGNZOO_RUNS, each under its name"),
    "model_name_or_path": Peer("model.path"),
    "base_model": Peer("model.path"),
    "model_revision": Peer("model.revision"),
    "tokenizer_name_or_path": Peer("model.tokenizer"),
    "trust_remote_code": Peer("model.trust_remote_code"),
    "load_in_4bit": Peer("model.quantize", "4bit"),
    "load_in_8bit": Peer("model.quantize", "8bit"),
    "quantization_bit": Peer("model.quantize", "4bit or 8bit"),
    "use_peft": Peer("model.lora", _LORA),
    "adapter": Peer("model.lora", _LORA),
    "finetuning_type": Peer("model.lora", f"{_LORA}; without it every weight is trained"),
    "lora_r": Peer("model.lora.r"),
    "lora_rank": Peer("model.lora.r"),
    "lora_alpha": Peer("model.lora.alpha"),
    "lora_dropout": Peer("model.lora.dropout", "must be 0"),
    "lora_target": Peer("model.lora.target_modules"),
    "lora_target_modules": Peer("model.lora.target_modules"),
    "lora_target_linear": Peer("model.lora.target_modules", "all-linear, the default"),
    "dataset_name": Peer("data.path", "a hub id, a folder or files, with data.name: files"),
    "dataset": Peer("data.path", "a hub id, a folder or files, with data.name: files"),
    "datasets": Peer("data.path", "files of one format, with data.name: files; several formats: data.name: mix"),
    "max_samples": Peer("data.max_train_rows"),
    "val_size": Peer("data.held_out_fraction"),
    "val_set_size": Peer("data.held_out_fraction"),
    "test_split_size": Peer("data.held_out_fraction"),
    "chat_template": Peer("model.chat_template"),
    "template": Peer("model.chat_template", "only for a tokenizer that has none"),
    "max_length": Peer("tokens.max_length"),
    "max_prompt_length": Peer("tokens.max_prompt_length"),
    "sequence_len": Peer("tokens.max_length"),
    "cutoff_len": Peer("tokens.max_length"),
    "truncation_mode": Peer("tokens.truncate_prompt"),
    "padding_free": Peer("train.layout", _PACKED),
    "sample_packing": Peer("train.layout", _PACKED),
    "packing": Peer("train.layout", _PACKED),
    "chat_template_kwargs": Peer("tokens.chat_template_kwargs"),
    "loss_type": Peer("objective.name", _LOSS),
    "pref_loss": Peer("objective.name", _LOSS),
    "rl": Peer("objective.name", _LOSS),
    "stage": Peer("objective.name", _LOSS),
    "beta": Peer("objective.beta"),
    "rl_beta": Peer("objective.beta"),
    "pref_beta": Peer("objective.beta"),
    "label_smoothing": Peer("objective.modifiers", "{name: label_smoothing, epsilon: 0.1}; or the objective cdpo"),
    "dpo_label_smoothing": Peer("objective.modifiers", "{name: label_smoothing, epsilon: 0.1}; or the objective cdpo"),
    "use_weighting": Peer("objective.modifiers", "wpo_weighting, in alignzoo-zoo"),
    "ld_alpha": Peer("objective.modifiers", "length_desensitization, in alignzoo-zoo"),
    "rpo_alpha": Peer("objective", _TERM),
    "pref_ftx": Peer("objective", _TERM),
    "loss_weights": Peer("objective", _TERM),
    "precompute_ref_log_probs": Peer("references", _CACHED),
    "ref_model": Peer("references.reference", "only for another model than the policy's start"),
    "num_generations": Peer("rollout.completions"),
    "temperature": Peer("rollout.temperature"),
    "top_p": Peer("rollout.top_p"),
    "max_completion_length": Peer("rollout.max_new_tokens"),
    "num_iterations": Peer("rollout.epochs"),
    "reward_funcs": Peer("rollout.rewards", "judges"),
    "reward_weights": Peer("rollout.rewards", "each reward's `weight`"),
    "mask_truncated_completions": Peer("rollout.unfinished", "drop"),
}
"""Key of TRL, Axolotl or LLaMA-Factory -> ours, where the words or the places differ."""


_ONLINE = "with a section `rollout`"

LOSSES: dict[str, Peer] = {
    "loss_type: sigmoid": Peer("dpo"),
    "loss_type: hinge": Peer("rso_hinge", "with log-ratios; SLiC-HF's own hinge is `slic_hf`"),
    "loss_type: ipo": Peer("ipo", "`log_ratio: mean` is TRL's; the default sums over tokens, as the paper does"),
    "loss_type: exo_pair": Peer("exo_pair"),
    "loss_type: nca_pair": Peer("nca_pair"),
    "loss_type: robust": Peer("robust_dpo"),
    "loss_type: bco_pair": Peer("bco_pair"),
    "loss_type: sppo_hard": Peer("sppo_hard"),
    "loss_type: aot": Peer("aot"),
    "loss_type: aot_unpaired": Peer("aot_unpaired"),
    "loss_type: apo_zero": Peer("apo_zero"),
    "loss_type: apo_down": Peer("apo_down"),
    "loss_type: discopop": Peer("discopop"),
    "loss_type: sigmoid_norm": Peer("ln_dpo"),
    "loss_type: sft": Peer("sft", "as a term: [{name: dpo}, {name: sft, weight: 0.2}]"),
    "loss_type: simpo": Peer("simpo", "`gamma` is `simpo_gamma`"),
    "loss_type: alphapo": Peer("alpha_po"),
    "loss_type: kto": Peer("kto"),
    "loss_type: apo_zero_unpaired": Peer("apo_zero_unpaired"),
    "rl: dpo, pref_loss: sigmoid": Peer("dpo"),
    "rl: orpo, pref_loss: orpo": Peer("orpo"),
    "rl: simpo, pref_loss: simpo": Peer("simpo"),
    "rl: kto": Peer("kto"),
    "SFTTrainer": Peer("sft"),
    "DPOTrainer": Peer("dpo", "and the other objectives on pairs"),
    "CPOTrainer": Peer("cpo", "its mean over tokens is `alpha: 0` and a term `sft`"),
    "ORPOTrainer": Peer("orpo"),
    "KTOTrainer": Peer("kto"),
    "BCOTrainer": Peer("bco"),
    "RewardTrainer": Peer("bradley_terry"),
    "PRMTrainer": Peer("process_reward", "`data: {format: steps}`"),
    "GKDTrainer": Peer("gkd", "`references.reference` is the teacher"),
    "OnlineDPOTrainer": Peer("dpo", _ONLINE),
    "XPOTrainer": Peer("xpo", _ONLINE),
    "NashMDTrainer": Peer("nash_md", _ONLINE),
    "PPOTrainer": Peer("ppo", _ONLINE),
    "RLOOTrainer": Peer("rloo", _ONLINE),
    "GRPOTrainer": Peer("grpo", _ONLINE),
}
"""Loss or trainer of TRL, Axolotl (`rl`) or LLaMA-Factory (`pref_loss`) -> our objective."""


def peer_of(key: str, at: str) -> Peer | None:
    """Return what another trainer's key is called here, or None.

    Args:
        key: The key.
        at: Its dotted path in the recipe. A key in its own place is none of another trainer.
    """
    found = PEERS.get(key)
    return None if found is None or found.key == at else found

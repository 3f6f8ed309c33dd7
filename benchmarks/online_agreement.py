"""Compare the first three updates of online objectives with TRL's: same completions, rewards and start weights, float32.

Run as: python benchmarks/online_agreement.py --trl-python PATH_OF_A_PYTHON_WITH_TRL [--only llama/8] [--case rloo] [--write]

alignzoo runs a recipe: it draws, asks the reward, and takes three AdamW updates. TRL's trainer gets those completions in
place of its own generation, and their rewards; advantages, log-probs, losses and updates are its own. Both are also
compared with the published formula in float64, which takes three updates of its own. Where TRL computes another formula,
each side is held to its own one, and the table says how the two differ. `--write` writes online_agreement.md and .json.
Exits with 1 where a gradient differs by more than 1e-5 of its norm, or a loss by more than 1e-6.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from beside_trl import RESULTS, ROOT, run_side
from online_formula import updates
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

import alignzoo

UPDATES, PROMPTS, LIMIT, RATE = 3, 4, 24, 1e-3
BOTH = (4, 8)
GRADIENT, LOSS = 1e-5, 1e-6
WORDS = 14
SHAPES: dict[str, dict[str, Any]] = {
    "neox": {"model_type": "gpt_neox", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "rotary_pct": 0.25},
    "llama": {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
              "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False},
}  # fmt: skip
CELLS = [f"{shape}/{each}" for shape in SHAPES for each in BOTH]
NAMES = {"neox": "GPT-NeoX", "llama": "Llama"}
REWARD = '''"""A reward of the token ids, the same for all completions of some prompts."""


def pattern(prompts, completions, completion_ids):
    """Return a number between 0 and 1."""
    return [
        0.3 if prompt.startswith("same") else sum(id * id % 7 for id in ids) / (6 * len(ids)) + len(ids) / 97
        for prompt, ids in zip(prompts, completion_ids)
    ]
'''
ONLINE = "import sys\nsys.path.insert(0, {path!r})\nfrom alignzoo_online import register_objectives\n"


@dataclass(frozen=True)
class Case:
    """An objective of both sides."""

    objective: dict[str, Any]
    form: str
    """alignzoo's formula, by its name in online_formula.py."""
    trl: dict[str, Any] = field(default_factory=dict)
    """TRL's settings."""
    trl_form: str = ""
    """TRL's formula where it is another one."""
    why: str = ""
    """What differs then."""
    more: dict[str, Any] = field(default_factory=dict)
    """What the formula reads."""
    epochs: int = 1
    """Updates of a rollout."""
    parts: int = 1
    """TRL's micro-batches."""
    temperature: float = 1.0
    equal: bool = True
    """One prompt of each update has equal rewards."""
    rate: float = RATE
    completions: tuple[int, ...] = (4,)

    @property
    def trainer(self) -> str:
        return "rloo" if self.objective["name"] == "rloo" else "grpo"


def dapo(low: float, high: float) -> dict[str, Any]:
    return {"objective": {"name": "dapo", "low": low, "high": high, "reduction": "batch_tokens"},
            "form": "token_mean_of_spread", "more": {"low": low, "high": high}}  # fmt: skip


TRL_DAPO = {"loss_type": "dapo", "beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28}
TRL_BNPO = {"loss_type": "bnpo", "beta": 0.0, "epsilon": 0.2}
TRL_GRPO = {"loss_type": "grpo", "epsilon": 0.2}
EQUAL = "TRL also counts the tokens of prompts with equal rewards, which DAPO leaves out of the batch"
RATIO = "TRL's loss is -rho A with the ratio rho of the completion, alignzoo's -A log pi: the same gradient at rho = 1"
CASES = {
    "grpo, beta 0": Case({"name": "grpo", "beta": 0.0}, "grpo", TRL_GRPO | {"beta": 0.0}, more={"beta": 0.0}, completions=BOTH),
    "grpo, beta 0.04": Case(
        {"name": "grpo", "beta": 0.04}, "grpo", TRL_GRPO | {"beta": 0.04}, more={"beta": 0.04}, completions=BOTH
    ),
    "grpo, beta 0.04, temperature 0.7": Case(
        {"name": "grpo", "beta": 0.04}, "grpo", TRL_GRPO | {"beta": 0.04}, more={"beta": 0.04}, temperature=0.7
    ),
    "grpo, beta 0.04, two micro-batches": Case(
        {"name": "grpo", "beta": 0.04}, "grpo", TRL_GRPO | {"beta": 0.04}, more={"beta": 0.04}, parts=2
    ),
    "grpo, beta 0.04, three updates a rollout": Case(
        {"name": "grpo", "beta": 0.04, "clip": 0.05}, "grpo", TRL_GRPO | {"beta": 0.04, "epsilon": 0.05},
        more={"beta": 0.04, "clip": 0.05}, epochs=3, completions=BOTH,
    ),
    "dr_grpo": Case(
        {"name": "dr_grpo"}, "dr_grpo", {"loss_type": "dr_grpo", "scale_rewards": "none", "beta": 0.0, "epsilon": 0.2},
        completions=BOTH,
    ),
    "dapo, all prompts with spread": Case(**dapo(0.2, 0.28), trl=TRL_DAPO, equal=False, completions=BOTH),
    "dapo, all prompts with spread, two micro-batches": Case(**dapo(0.2, 0.28), trl=TRL_DAPO, equal=False, parts=2),
    "dapo": Case(**dapo(0.2, 0.28), trl=TRL_DAPO, trl_form="token_mean", why=EQUAL),
    "bnpo as dapo with equal limits, all prompts with spread": Case(**dapo(0.2, 0.2), trl=TRL_BNPO, equal=False),
    "gspo, three updates a rollout": Case(
        {"name": "gspo"}, "gspo",
        TRL_GRPO | {"importance_sampling_level": "sequence", "epsilon": 3e-4, "epsilon_high": 4e-4, "beta": 0.0}, epochs=3,
        rate=5e-6,  # a larger one takes every completion past these limits in the first update
    ),
    "cispo, three updates a rollout": Case(
        {"name": "cispo"}, "cispo", {"loss_type": "cispo", "epsilon_high": 5.0, "beta": 0.0}, epochs=3
    ),
    "rloo, beta 0": Case(
        {"name": "rloo", "beta": 0.0}, "rloo", {"beta": 0.0}, "rloo_ratio", RATIO, more={"beta": 0.0},
        completions=BOTH,
    ),
    "rloo, beta 0.05": Case(
        {"name": "rloo", "beta": 0.05}, "rloo", {"beta": 0.05}, "rloo_ratio", RATIO, more={"beta": 0.05},
        completions=BOTH,
    ),
}  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer of a few words, so that random weights draw the end-of-sequence token now and then."""
    words = ["<eos>", "<pad>", "same", *(f"w{n}" for n in range(WORDS - 3))]
    made = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<eos>", pad_token="<pad>")


def write_inputs(folder: Path, shape: str) -> None:
    """Write the model of a shape."""
    torch.manual_seed(0)
    about = SHAPES[shape] | {
        "vocab_size": WORDS, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1, "max_position_embeddings": 64,
        "initializer_range": 0.1, "attention_dropout": 0.0, "hidden_dropout": 0.0,
    }  # fmt: skip
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(**about), dtype=torch.float32)
    made.save_pretrained(folder / shape)
    tokenizer().save_pretrained(folder / shape)


def prompts(case: Case) -> list[str]:
    """Return the prompts of all rollouts, of 3 to 12 words."""
    dice, found = random.Random(0), []
    for n in range(PROMPTS * UPDATES // case.epochs):
        words = [f"w{dice.randrange(WORDS - 3)}" for _ in range(dice.randint(3, 12))]
        found.append(" ".join((["same"] if case.equal and n % PROMPTS == 1 else []) + words))
    return found


def write_recipe(folder: Path, name: str, case: Case, shape: str, each: int) -> Path:
    """Write alignzoo's recipe of a case, with its prompts."""
    own = folder / name
    (own / "data").mkdir(parents=True)
    (own / "reward.py").write_text(REWARD)
    (own / "online.py").write_text(ONLINE.format(path=str(ROOT / "plugins" / "alignzoo-online")))
    for part, texts in (("train", prompts(case)), ("test", ["w1 w2 w3"])):
        (own / "data" / f"{part}.jsonl").write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    (own / f"{name}.yaml").write_text(json.dumps({
        "plugins": ["./reward.py", "./online.py"], "objective": case.objective, "model": {"path": str(folder / shape)},
        "data": {"name": "files", "path": str(own / "data")},
        "tokens": {"max_length": 64, "max_prompt_length": 32},
        "rollout": {
            "completions": each, "max_new_tokens": LIMIT, "rewards": ["pattern"], "kl_rows": 0, "held_out_prompts": 0,
            "temperature": case.temperature, "epochs": case.epochs,
        },
        "train": {
            "shuffle": False, "device": "cpu", "batch_size": PROMPTS, "max_steps": UPDATES, "max_grad_norm": None,
            "optimizer": {"name": "adamw", "learning_rate": case.rate},
        },
        "eval": {"replies": {"num_prompts": 0}}, "reporters": [],
    }))  # fmt: skip
    return own / f"{name}.yaml"


def trl_case(folder: Path, case: Case, shape: str, each: int, rollouts: list[dict]) -> dict[str, Any]:
    """Return what TRL's side reads of a case."""
    settings = case.trl | {
        "per_device_train_batch_size": PROMPTS * each // case.parts, "gradient_accumulation_steps": case.parts,
        "num_generations": each, "max_completion_length": LIMIT, "max_steps": UPDATES, "learning_rate": case.rate,
        "temperature": case.temperature, "num_iterations": case.epochs,
    }  # fmt: skip
    return {"trainer": case.trainer, "model": str(folder / shape), "settings": settings, "prompts": prompts(case),
            "rollouts": rollouts}  # fmt: skip


def check(case: Case, rollouts: list[dict]) -> None:
    """Raise ValueError where the draws are not as the table says: uneven, some cut, one group of equal rewards."""
    drawn = [text for one in rollouts for text in one["prompts"]]
    if drawn != prompts(case):
        raise ValueError(f"drawn for other prompts, or in another order: {drawn}")
    for one in rollouts:
        lengths, each = list(map(len, one["completions"])), len(one["completions"]) // PROMPTS
        groups = [set(one["rewards"][n * each : (n + 1) * each]) for n in range(PROMPTS)]
        equal = sum(len(group) == 1 for group in groups)
        if len(set(lengths)) < 3 or all(one["finished"]) or not any(one["finished"]) or equal != case.equal:
            raise ValueError(f"lengths {lengths}, finished {one['finished']}, {equal} groups of equal rewards")


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Return |a - b| / |b| over all parameters."""
    if a.keys() != b.keys():
        raise ValueError(f"gradients of other parameters: {sorted(a.keys() ^ b.keys())}")
    apart = sum(float((a[name].double() - b[name].double()).square().sum()) for name in a)
    norm = sum(float(b[name].double().square().sum()) for name in b)
    return (apart / norm) ** 0.5 if norm else (0.0 if apart == 0 else float("inf"))


def compare(folder: Path, case: Case, shape: str, mine: dict, trl: dict) -> list[dict[str, Any]]:
    """Return the differences of each update."""
    settings = {"beta": 0.0, "limit": LIMIT, "learning_rate": case.rate, "temperature": case.temperature} | case.more
    exact = updates(folder / shape, case.form, settings, mine["rollouts"], UPDATES)
    peer = updates(folder / shape, case.trl_form, settings, mine["rollouts"], UPDATES) if case.trl_form else exact
    found = []
    for n in range(UPDATES):
        ours, theirs = (load_file(side["gradients"][n]) for side in (mine, trl))
        line = {
            "alignzoo_gradient": distance(ours, exact[n]["gradients"]),
            "trl_gradient": distance(theirs, peer[n]["gradients"]),
            "alignzoo_loss": abs(mine["losses"][n] - exact[n]["loss"]),
            "trl_loss": abs(trl["losses"][n] - peer[n]["loss"]),
            "gradient": distance(ours, theirs), "loss": abs(mine["losses"][n] - trl["losses"][n]),
            "forms_gradient": distance(exact[n]["gradients"], peer[n]["gradients"]),
            "forms_loss": abs(exact[n]["loss"] - peer[n]["loss"]), "clipped": exact[n]["clipped"],
        }  # fmt: skip
        found.append(line)
    return found


def measure(
    folder: Path, asked: list[str], python: str, chosen: dict[str, Case]
) -> tuple[dict[str, dict[str, list[dict]]], dict[str, str]]:
    """Return the differences of each case by cell, a model and a number of completions, and TRL's versions."""
    cells: dict[str, tuple[str, str, int, str]] = {}
    for cell in asked:
        shape, each = cell.split("/")
        if not (folder / shape).exists():
            write_inputs(folder, shape)
        for n, name in enumerate(CASES):
            if name in chosen and int(each) in CASES[name].completions:
                cells[f"{shape}g{each}c{n}"] = cell, shape, int(each), name
    recipes = {
        key: str(write_recipe(folder, key, CASES[name], shape, each)) for key, (_, shape, each, name) in cells.items()
    }
    given: dict[str, Any] = {"recipes": recipes, "threads": 1}
    mine = run_side(sys.executable, "alignzoo_online_updates.py", folder / "alignzoo", given, limit=7200)["cases"]
    for key, (_, _, _, name) in cells.items():
        check(CASES[name], mine[key]["rollouts"])
    known = {
        key: trl_case(folder, CASES[name], shape, each, mine[key]["rollouts"])
        for key, (_, shape, each, name) in cells.items()
    }
    trl = run_side(python, "trl_online_updates.py", folder / "trl", {"cases": known, "threads": 1}, limit=7200)
    found: dict[str, dict[str, list[dict]]] = {}
    for key, (cell, shape, _, name) in cells.items():
        found.setdefault(cell, {})[name] = compare(folder, CASES[name], shape, mine[key], trl["cases"][key])
    return found, trl["versions"]


def worst(lines: list[dict[str, Any]], key: str) -> float:
    return max(line[key] for line in lines)


def passes(case: Case, lines: list[dict[str, Any]]) -> bool:
    """Return True where both sides are near their formula, and near each other where the formulas are one."""
    pairs = [("alignzoo_gradient", "alignzoo_loss"), ("trl_gradient", "trl_loss")]
    pairs += [] if case.trl_form else [("gradient", "loss")]
    return all(worst(lines, one) <= GRADIENT and worst(lines, two) <= LOSS for one, two in pairs)


def write(results: dict[str, dict[str, list[dict]]], versions: dict[str, str]) -> str:
    """Return the table, and write it and the figures of every update."""
    about = ", ".join(f"{key} {value}" for key, value in (versions | {"alignzoo": alignzoo.__version__}).items())
    lines = [
        "# Online updates beside TRL", "",
        f"Command: `python benchmarks/online_agreement.py --trl-python PYTHON --write` ({about}; {platform.machine()}).", "",
        f"The first {UPDATES} AdamW updates (learning rate {RATE:g}) of random-weight models, float32, {PROMPTS} prompts of 3 to "
        f"12 tokens an update, G completions of at most {LIMIT} tokens each, some ended and some cut; one prompt of an update "
        "has equal rewards unless the case says otherwise. TRL's trainers are given alignzoo's completions and rewards; "
        "everything else is theirs. The third side is the published formula in float64, one sequence at a time, with updates "
        "of its own.", "",
        "Gradients: the norm of the difference over the norm, all parameters together. Losses: the absolute difference. Each "
        f"figure is the largest of the {UPDATES} updates. Limits: {GRADIENT:g} and {LOSS:g}.", "",
        "| objective | model | G | gradient: alignzoo to TRL | alignzoo to float64 | TRL to float64 "
        "| loss: alignzoo to TRL | alignzoo to float64 | TRL to float64 | clipped values |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]  # fmt: skip
    for cell, cases in results.items():
        shape, each = cell.split("/")
        for name, found in cases.items():
            case = CASES[name]
            keys = ("gradient", "alignzoo_gradient", "trl_gradient", "loss", "alignzoo_loss", "trl_loss")
            figures = [f"{worst(found, key):.1e}" for key in keys]
            if case.trl_form:
                figures[0] += " (1)" if case.why == EQUAL else ""
                figures[3] += " (1)" if case.why == EQUAL else " (2)"
            lines.append(
                f"| {name} | {NAMES[shape]} | {each} | {' | '.join(figures)} | {sum(one['clipped'] for one in found)} |"
            )
    lines += ["", *notes(results)]
    text = "\n".join(lines) + "\n"
    (RESULTS / "online_agreement.md").write_text(text)
    (RESULTS / "online_agreement.json").write_text(
        json.dumps({"versions": versions, "results": results}, indent=1) + "\n"
    )
    return text


def notes(results: dict[str, dict[str, list[dict]]]) -> list[str]:
    """Return what the marked differences are, with their size in float64."""

    def largest(why: str, key: str) -> str:
        own = [name for name, case in CASES.items() if case.why == why]
        return f"{max(worst(cases[name], key) for cases in results.values() for name in own if name in cases):.1e}"

    return [
        f"(1) {EQUAL}. So its gradient is smaller, by the share of tokens that those prompts have. In float64 the two formulas "
        f"differ by up to {largest(EQUAL, 'forms_gradient')} (gradient) and {largest(EQUAL, 'forms_loss')} (loss); each side "
        "agrees with its own.", "",
        f"(2) {RATIO}. In float64 the formulas' gradients differ by up to {largest(RATIO, 'forms_gradient')}, their losses by "
        f"{largest(RATIO, 'forms_loss')}; each side agrees with its own.",
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trl-python", required=True)
    parser.add_argument(
        "--only", nargs="+", choices=CELLS, help="these models and numbers of completions; default: all"
    )
    parser.add_argument("--case", default="", help="cases whose name begins so")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    cases = {name: case for name, case in CASES.items() if name.startswith(asked.case)}
    path = RESULTS / "online_agreement.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"results": {}}
    cells = [cell for cell in CELLS if cell in (asked.only or CELLS)]
    with tempfile.TemporaryDirectory() as name:
        found, known["versions"] = measure(Path(name), cells, asked.trl_python, cases)
    good = True
    for cell, own in found.items():
        for case, lines in own.items():
            figures = {key: f"{worst(lines, key):.1e}" for key in lines[0]}
            good &= passes(CASES[case], lines)
            print(cell, case, "" if passes(CASES[case], lines) else "DIFFERS", figures, flush=True)
    known["results"] |= found
    if asked.write and not asked.case:
        print(write(known["results"], known["versions"]))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())

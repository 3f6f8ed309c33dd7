"""Plain functions of a plugin file are rewards, and are called as TRL's GRPOTrainer calls them."""

from __future__ import annotations

import asyncio
import json
import math
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

from alignzoo.core.errors import RunFailed, UserError
from alignzoo.interfaces.judge import Asked
from alignzoo.recipe.load import load_recipe
from alignzoo.recipe.rewards import Reward
from alignzoo.registry.lookup import registry
from alignzoo.rollouts.rewards import score
from alignzoo.training.preflight import preflight

CHAT = [{"role": "user", "content": "Hi"}]
ASKED = Asked(
    ["p", "p", CHAT], ["yes", "no", "well"], [{"answer": "yes", "level": 1}, {"answer": "yes", "level": 1}, {"level": 2}],
    [True, False, True], [[5, 6], [7], [8, 9, 2]], ["a", "a", "b"],
)  # fmt: skip
SOURCE = '''
    import asyncio
    import functools

    def seen(prompts, completions, completion_ids, level, **more):
        """Records what it is called with."""
        seen.calls.append(dict(prompts=prompts, completions=completions, completion_ids=completion_ids, level=level, **more))
        return [len(ids) / 10 for ids in completion_ids]
    seen.calls = []

    def plain(completions, level):
        return [level / len(text) for level, text in zip(level, completions)]

    def right(completions, answer, **more):
        return [None if gold is None else text == gold for text, gold in zip(completions, answer)]

    class Scaled:
        def __init__(self, by):
            self.by = by

        def __call__(self, completions, **more):
            return [self.by * len(one) for one in completions]

    tripled = Scaled(3)

    async def slow(completions, log_metric=None, **more):
        await asyncio.sleep(0)
        return [0.5 for _ in completions]

    def _hidden(completions):
        return []

    def helper(texts):
        return texts
'''


@pytest.fixture
def file(tmp_path):
    """`file(source)` writes a plugin file and returns its judges by name."""

    def judges(source: str = SOURCE, name: str = "my_reward.py") -> dict[str, type]:
        path = tmp_path / name
        path.write_text(textwrap.dedent(source))
        known = registry().with_files([path])
        return {offer.name: offer.cls for offer in known._files}

    return judges


def scores(cls: type, asked: Asked = ASKED) -> list[float]:
    return score([Reward(judge=cls())], asked, "step 3: ")[0].tolist()


def test_functions_that_take_completions_are_judges(file):
    judges = file()
    assert sorted(judges) == ["plain", "right", "seen", "slow", "tripled"]
    assert judges["seen"].__doc__ == "Records what it is called with."
    assert judges["tripled"].__doc__ == "Reward function of my_reward.py."
    assert len({registry().code(cls) for cls in judges.values()}) == 1


def test_a_function_is_called_by_keyword_with_what_its_signature_takes(file):
    judges = file()
    assert scores(judges["seen"]) == [0.2, 0.1, 0.3]
    (call,) = judges["seen"].function.calls
    assert call == {
        "prompts": ["p", "p", CHAT], "completions": ["yes", "no", [{"role": "assistant", "content": "well"}]],
        "completion_ids": [[5, 6], [7], [8, 9, 2]], "answer": ["yes", "yes", None], "level": [1, 1, 2],
    }  # fmt: skip
    assert scores(judges["plain"]) == [1 / 3, 1 / 2, 2.0]
    right = scores(judges["right"])
    assert right[:2] == [1.0, 0.0]
    assert math.isnan(right[2])
    assert scores(judges["tripled"]) == [9.0, 6.0, 3.0]
    assert scores(judges["slow"]) == [0.5] * 3


def test_the_rewards_are_those_that_trl_computes(file):
    """TRL's own method, on the same rows; its functions need **kwargs, since it passes everything."""
    pytest.importorskip("trl")
    import threading

    import torch
    from trl import GRPOTrainer

    judges = file()
    names = ["right", "tripled", "slow"]
    asked = Asked(ASKED.prompts[:2], ASKED.replies[:2], ASKED.columns[:2], ASKED.finished[:2], ASKED.tokens[:2])
    functions = [judges[name].function for name in names]
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu", is_main_process=True), reward_funcs=functions, environments=None,
        reward_processing_classes=[None] * 3, reward_func_names=names, state=None, _log_completion_extra=None,
        _log_metric=None, async_loop=loop, _name="t", args=SimpleNamespace(report_to=[]),
    )  # fmt: skip
    inputs = [{"prompt": prompt, **row} for prompt, row in zip(asked.prompts, asked.columns, strict=True)]
    inner = GRPOTrainer._calculate_rewards
    while hasattr(inner, "__wrapped__"):
        inner = inner.__wrapped__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trl.trainer.grpo_trainer.gather", lambda tensor: tensor)
        patch.setattr("trl.trainer.grpo_trainer.profiling_context", lambda *_: torch.no_grad())
        theirs = inner(trainer, inputs, asked.prompts, asked.replies, asked.tokens)
    loop.call_soon_threadsafe(loop.stop)
    ours = score([Reward(judge=judges[name]()) for name in names], asked, "")
    assert np.allclose(ours.T, theirs.numpy(), equal_nan=True)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def f(completions, trainer_state):\n    return []", "needs 'trainer_state', which only TRL's trainer has"),
        ("def f(completions, /):\n    return []", "takes 'completions' by position; rewards are called by keyword"),
        ("def f(texts):\n    return []", "or, in a file, a reward function that takes `completions`"),
        ("def length(completions):\n    return []", "judge 'length' exists already"),
    ],
)
def test_a_function_that_can_not_be_called_is_an_error_with_its_file(file, source, words):
    with pytest.raises(UserError, match=words) as error:
        file(source)
    assert "my_reward.py" in str(error.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("['high'] * 3", "returned 'high', for the reply 'yes' of row a; expected a number or NaN"),
        ("[1.0, float('inf'), 1.0]", "is infinite, for the reply 'no' of row a"),
        ("[1.0]", "returned 1 scores for 3 replies"),
        ("1.0", "raised TypeError: 'float' object is not iterable"),
        ("completions['x']", r"raised TypeError: list indices .*my_reward\.py:2"),
    ],
)
def test_what_is_no_reward_names_step_row_and_reward(file, body, words):
    judges = file(f"def odd(completions):\n    return {body}")
    with pytest.raises(RunFailed, match=f"step 3: the reward odd {words}"):
        scores(judges["odd"])


def test_a_column_that_the_data_lacks_is_an_error_before_the_run(file, tmp_path):
    file("def graded(completions, grade):\n    return grade")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"q {n}", "grades": n}) + "\n" for n in range(30)))
    recipe = load_recipe("dpo_hh", {
        "plugins": [str(tmp_path / "my_reward.py")], "rollout": {"rewards": ["graded"]},
        "data": {"name": "files", "path": str(rows)},
    })  # fmt: skip
    with pytest.raises(
        UserError, match=r"rollout\.rewards\.0: graded reads the column 'grade', .* did you mean 'grades'"
    ):
        preflight(recipe)


@pytest.mark.slow
def test_a_run_learns_from_a_function_of_a_file(online, home):
    """With a gold answer that only a column has, and one reward that applies to no reply of a row."""
    file = home / "my_reward.py"
    file.write_text(
        "def known(prompts, completions, completion_ids, answer):\n"
        "    assert len(prompts) == len(completion_ids)\n"
        "    return [None if gold == 'none' else text.count('e') / 10 for text, gold in zip(completions, answer)]\n"
    )
    rows = home / "rows.jsonl"
    (start,) = (home / "runs").glob("sft_hh-*/policy")

    def run(answers):
        texts = (
            json.dumps({"prompt": f"\n\nHuman: {n}?\n\nAssistant:", "answer": one}) for n, one in enumerate(answers)
        )
        rows.write_text("".join(f"{text}\n" for text in texts))
        data = f"data={{name: files, path: {rows}, held_out_fraction: 0}}"
        return online("dpo", data, f"model={{path: {start}}}", f"plugins=[{file}]", "rollout.rewards=[known]",
                      "train.max_steps=1", "eval.every=null")  # fmt: skip

    done = run(["yes"] * 8)
    replies = [json.loads(one) for one in (done.folder / "rollouts/000000/judged/replies.jsonl").open()]
    assert [one["scores"] for one in replies] == [[one["reply"].count("e") / 10] for one in replies]
    with pytest.raises(RunFailed, match=r"step 1: no reward \(known\) applies to a completion of row .*rows\.jsonl:\d"):
        run(["none"] * 8)

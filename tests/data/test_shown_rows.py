"""Rows as the model sees them: the role of every token, what is scored and cut, and which rows are worst."""

from __future__ import annotations

import json

import pytest
import yaml
from byte_tokenizer import CHATML, byte_tokenizer
from hh_rows import dialogue

from alignzoo.core.errors import UserError
from alignzoo.data.dataset import tokenized_dataset
from alignzoo.data.row_reader import RowReader
from alignzoo.data.shown_rows import find_rows, first_rows, show_rows
from alignzoo.data.worst_rows import worst_rows
from alignzoo.recipe.load import load_recipe

WITH_TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | length }} tools<|im_end|>\n{% endif %}" + CHATML


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def bot(text: str) -> dict:
    return {"role": "assistant", "content": text}


def turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Records -> (the resolved recipe, its dataset, its rows as they are shown)."""
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))

    def make(records, objective="dpo", split="train", template=WITH_TOOLS, bos=False, sets=None, drawn=False, **tokens):
        for name, some in {"rows": records, **(sets or {})}.items():
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in some))
        node = {
            "objective": objective, "model": {"path": "nowhere"}, "reporters": [],
            "data": {"name": "files", "path": "./rows.jsonl", "held_out_fraction": 0},
            "eval": {"data": {name: {"name": "files", "path": f"./{name}.jsonl"} for name in sets or {}}},
            "tokens": {"max_length": 2000, "max_prompt_length": 1000} | tokens,
            **({"rollout": {"rewards": ["toy"]}} if drawn else {}),
            "train": {"optimizer": {"name": "sgd", "learning_rate": 1}},
        }  # fmt: skip
        node |= {"rollout": {"completions": 2, "rewards": ["toy"]}} if drawn else {}
        (tmp_path / "r.yaml").write_text(yaml.safe_dump(node))
        resolved = load_recipe(tmp_path / "r.yaml")
        tokenizer = byte_tokenizer(template=template, prepends_bos=bos)
        dataset = tokenized_dataset(resolved, tokenizer, lambda line: None)
        count = len(dataset.part(split).trees)
        places = [(split, i) for i in range(count)]
        wanted = [(*place, row) for place, row in zip(places, find_rows(resolved, dataset, places), strict=True)]
        return resolved, dataset, show_rows(resolved, tokenizer, dataset, wanted)

    return make


def by_role(row: dict) -> list[list[tuple[str, str]]]:
    """(role, text) of each part, with scored text in brackets, and neighbors of one role joined."""
    parts = []
    for part in row["parts"]:
        joined: list[tuple[str, str]] = []
        for role, scored, tokens in part["pieces"]:
            text = f"[{''.join(tokens)}]" if scored else "".join(tokens)
            if joined and joined[-1][0] == role:
                joined[-1] = role, joined[-1][1] + text
            else:
                joined.append((role, text))
        parts.append(joined)
    return parts


CHAT = {
    "prompt": [{"role": "system", "content": "be"}, user("hi"), bot("hey"), user("so?")],
    "chosen": [bot("call"), {"role": "tool", "content": "42"}, bot("yes")],
    "rejected": [bot("no")],
}


def test_a_chat_has_the_roles_of_its_messages_and_what_is_scored(world):
    _, _, (row,) = world([CHAT])
    prompt, chosen, rejected = by_role(row)
    assert prompt == [
        ("system", turn("system", "be")), ("user", turn("user", "hi")), ("assistant", turn("assistant", "hey")),
        ("user", turn("user", "so?")), ("assistant", "<|im_start|>assistant\n"),
    ]  # fmt: skip
    assert chosen == [("assistant", "[call<|im_end|>]\n"), ("tool", turn("tool", "42")),
                      ("assistant", "<|im_start|>assistant\n[yes<|im_end|>]")]  # fmt: skip
    assert rejected == [("assistant", "[no<|im_end|>]")]
    assert (row["id"], row["split"], row["cut"]) == ("rows.jsonl:1", "train", 0)
    assert [(part["name"], part["scored"]) for part in row["parts"]] == [("prompt", 0), ("chosen", 9), ("rejected", 3)]


def test_what_the_template_writes_before_the_first_message_is_the_systems(world):
    record = {"prompt": [user("hi")], "chosen": [bot("a")], "rejected": [bot("b")], "tools": [{"name": "f"}]}
    _, _, (row,) = world([record])
    assert by_role(row)[0][:2] == [("system", turn("system", "1 tools")), ("user", turn("user", "hi"))]


@pytest.mark.parametrize("keep", ["keep_end", "keep_start"])
@pytest.mark.parametrize("bos", [False, True])
def test_truncation_moves_no_role(world, keep, bos):
    text = dialogue("first " * 20, "second " * 5, "third")
    record = {"prompt": text + "\n\nAssistant:", "chosen": " good", "rejected": " bad"}
    _, _, (whole,) = world([record], bos=bos)
    _, _, (row,) = world([record], bos=bos, max_length=60, max_prompt_length=40, truncate_prompt=keep)
    assert row["cut"] == whole["parts"][0]["tokens"] - 40 > 0
    long, short = (
        [(role, token) for role, _, tokens in one["parts"][0]["pieces"] for token in tokens] for one in (whole, row)
    )
    first = int(bos)
    assert short == (long[:40] if keep == "keep_start" else long[:first] + long[len(long) - 40 + first :])
    assert by_role(row)[1] == [("assistant", "[ good</s>]")]


def test_plain_text_is_the_users_prompt_and_the_assistants_answer(world):
    _, _, (row,) = world([{"prompt": "why?", "chosen": " so", "rejected": " no"}], bos=True)
    assert by_role(row) == [[("user", "<s>why?")], [("assistant", "[ so</s>]")], [("assistant", "[ no</s>]")]]
    _, _, (row,) = world([{"prompt": "", "chosen": "so", "rejected": "no"}])
    assert by_role(row) == [[("text", "<s>")], [("text", "[so</s>]")], [("text", "[no</s>]")]]


@pytest.mark.parametrize("bos", [False, True])
def test_prompts_that_completions_are_drawn_for_are_shown_up_to_where_a_reply_begins(world, bos):
    human = dialogue("hi")
    records = [CHAT, {"prompt": "why?"}, {"prompt": [user("say"), bot("well")]}, {"prompt": human}]
    _, dataset, shown = world(records, drawn=True, bos=bos)
    assert [[part["name"] for part in row["parts"]] for row in shown] == [["prompt"]] * 4
    chat, plain, begun, turns = (by_role(row)[0] for row in shown)
    first = "<s>" * bos
    assert chat == [
        ("system", turn("system", "be")), ("user", turn("user", "hi")), ("assistant", turn("assistant", "hey")),
        ("user", turn("user", "so?")), ("assistant", "<|im_start|>assistant\n"),
    ]  # fmt: skip
    assert plain == [("user", first + "why?")]
    assert begun == [("user", turn("user", "say")), ("assistant", "<|im_start|>assistant\nwell")]
    assert "".join(text for _, text in turns) == first + human
    assert turns[-1][0] == "user"
    assert [sum(len(tokens) for *_, tokens in row["parts"][0]["pieces"]) for row in shown] == (
        dataset.train.trees.sizes.tolist()
    )


def test_data_of_sft_is_shown_as_it_is_trained_on(world):
    chat = {"messages": [user("hi"), bot("a"), user("more"), bot("b")]}
    _, _, (row, text) = world([chat, {"text": "once upon"}], objective="sft")
    assert by_role(row) == [
        [("user", turn("user", "hi")), ("assistant", "<|im_start|>assistant\n")],
        [("assistant", "[a<|im_end|>]\n"), ("user", turn("user", "more")),
         ("assistant", "<|im_start|>assistant\n[b<|im_end|>]")],
    ]  # fmt: skip
    assert by_role(text) == [[("text", "o")], [("text", "[nce upon</s>]")]]


@pytest.mark.parametrize("bos", [False, True])
def test_prompts_that_completions_are_drawn_for_are_shown_alone(world, bos):
    alone = {"messages": [user("What is 2+2?"), bot("4."), user("And 3+3?")]}
    pair = {"prompt": "Sum: ", "chosen": "5", "rejected": "6"}
    resolved, dataset, shown = world([alone, pair], drawn=True, bos=bos)
    want = [
        [[("user", turn("user", "What is 2+2?")), ("assistant", turn("assistant", "4.")),
          ("user", turn("user", "And 3+3?")), ("assistant", "<|im_start|>assistant\n")]],
        [[("user", "<s>" * bos + "Sum: ")]],
    ]  # fmt: skip
    assert [[part["name"] for part in row["parts"]] for row in shown] == [["prompt"], ["prompt"]]
    assert [by_role(row) for row in shown] == want
    assert [row["id"] for row in first_rows(resolved, byte_tokenizer(template=WITH_TOOLS, prepends_bos=bos), dataset)]


def test_a_template_that_can_not_render_a_beginning_leaves_the_roles_unknown(world):
    raises = "{% if messages[-1].role == 'system' %}{{ raise_exception('no user') }}{% endif %}" + CHATML
    _, _, (row,) = world([CHAT], template=raises)
    assert {role for part in by_role(row) for role, _ in part} == {"text"}
    assert row["parts"][1]["scored"] == 9, "what is scored is known all the same"


PAIR = [{"prompt": f"p {i} {'long ' * (i % 3)}", "chosen": "yes", "rejected": f"no {'x' * i}"} for i in range(12)]


def test_a_chat_of_thousands_of_turns_is_shown_without_roles(world):
    """Roles take a rendering of each beginning, and a run shows its first rows before it trains."""
    prompt = [message for n in range(1001) for message in (user(str(n)), bot("a"))][:-1]
    record = {"prompt": prompt, "chosen": [bot("b")], "rejected": [bot("c")]}
    _, _, (row,) = world([record])
    assert {role for part in by_role(row) for role, _ in part} == {"text"}


def test_any_row_can_be_found_and_the_first_ones_are_kept(world):
    resolved, dataset, shown = world(PAIR, sets={"other": PAIR[:2]})
    assert [row["id"] for row in shown] == [f"rows.jsonl:{i}" for i in range(1, 13)]
    assert len(dataset.train.rows) == 8
    first = first_rows(resolved, byte_tokenizer(template=CHATML), dataset)
    assert first == [*shown[:3], {**first[3], "split": "other", "id": "other.jsonl:1"}]
    assert json.loads(json.dumps(first)) == first


def test_the_longest_and_the_most_truncated_rows(world):
    resolved, dataset, shown = world(PAIR, max_length=12, max_prompt_length=8)
    reader = RowReader(resolved.recipe.data)
    sizes = [sum(part["tokens"] for part in row["parts"]) for row in shown]
    longest = worst_rows("length", resolved, dataset, "train", 4, reader)
    assert [sizes[i] for i, _ in longest] == sorted(sizes, reverse=True)[:4]
    cut = [i for i, _ in worst_rows("truncated", resolved, dataset, "train", 4, reader)]
    assert [shown[i]["cut"] for i in cut] == sorted((row["cut"] for row in shown), reverse=True)[:4]
    text = [len(f"{one['prompt']}{one['chosen']}{one['rejected']}") + 2 for one in PAIR]
    assert [row["cut"] for row in shown] == [n - m for n, m in zip(text, sizes, strict=True)]


def test_rows_that_are_trained_on_and_evaluated_are_named_on_both_sides(world):
    sets = {"other": [PAIR[3], {**PAIR[5], "chosen": "else"}, {"prompt": "q", "chosen": "y", "rejected": "n"}]}
    resolved, dataset, _ = world(PAIR, sets=sets)
    assert dataset.report["evaluation"]["other"]["overlap"] == {"rows": 1, "prompts": 2}
    reader = RowReader(resolved.recipe.data)
    assert worst_rows("overlap", resolved, dataset, "train", 5, reader) == [
        (3, "equals other.jsonl:1, which is evaluated"), (5, "has the prompt of other.jsonl:2, which is evaluated"),
    ]  # fmt: skip
    assert worst_rows("overlap", resolved, dataset, "other", 5, reader) == [
        (0, "equals rows.jsonl:4, which is trained on"), (1, "has the prompt of rows.jsonl:6, which is trained on"),
    ]  # fmt: skip
    assert worst_rows("overlap", resolved, dataset, "train", 1, reader) == [
        (3, "equals other.jsonl:1, which is evaluated")
    ]


def test_a_row_that_went_is_an_error(world, tmp_path):
    resolved, dataset, _ = world(PAIR)
    (tmp_path / "rows.jsonl").write_text(json.dumps(PAIR[0]) + "\n")
    with pytest.raises(UserError, match=r"the row rows\.jsonl:12 is not in the data any more"):
        find_rows(resolved, dataset, [("train", 11)])


def test_far_rows_are_found_in_one_pass(world, monkeypatch):
    records = [{"prompt": f"q {i}", "chosen": "y", "rejected": "n"} for i in range(30)]
    resolved, dataset, _ = world(records)
    reader = RowReader(resolved.recipe.data)
    passes = []
    monkeypatch.setattr(RowReader, "used", lambda self, used=RowReader.used: passes.append(1) or used(self))
    wanted = [29, 2, 15, 29]
    found = find_rows(resolved, dataset, [("train", i) for i in wanted], reader)
    assert [row.id for row in found] == [f"rows.jsonl:{i + 1}" for i in wanted]
    assert [row.prompt for row in found] == [f"q {i}" for i in wanted]
    assert len(passes) == 1


@pytest.mark.parametrize("chunk", [1, 1024])
def test_held_out_prompts_among_pairs_are_all_prompts_whatever_a_chunk_holds(world, monkeypatch, chunk):
    """Rows are converted a chunk at a time, and one prompt alone decides for all rows."""
    monkeypatch.setattr("alignzoo.data.tokenize_pipeline.CHUNK", chunk)
    pairs = [{"prompt": f"q {i}", "chosen": "y", "rejected": "n"} for i in range(4)]
    _, dataset, _ = world(pairs, sets={"mixed": [*pairs, {"prompt": "alone"}, *pairs], "pairs": pairs}, drawn=True)
    assert [len(tree.branches) for tree in dataset.evaluation["mixed"].trees] == [0] * 9
    assert [len(tree.branches) for tree in dataset.evaluation["pairs"].trees] == [2] * 4


def test_a_row_that_an_objective_can_not_take_is_told_with_its_evaluation_set(world):
    pairs = [{"prompt": f"q {i}", "chosen": "y", "rejected": "n"} for i in range(4)]
    with pytest.raises(
        UserError, match=r"^eval\.data\.sums: dpo needs completions, and row sums\.jsonl:1 has a prompt alone"
    ):
        world(pairs, sets={"sums": [{"prompt": "1 + 1", "gold": "2"}]})

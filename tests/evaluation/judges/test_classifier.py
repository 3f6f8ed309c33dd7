"""A classifier's score is what the model makes of that one text by itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import transformers as hf
from byte_tokenizer import CHATML, byte_tokenizer

from alignzoo import Completion, Row
from alignzoo.core.errors import UserError
from alignzoo.data.tokenize import tokenize
from alignzoo.evaluation.judges.classifier import Classifier
from alignzoo.models.loading import from_config, load_policy
from alignzoo.recipe.schema import TokensConfig
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scorer import Scorer
from alignzoo.training.checkpoint import export, weights_of

PROMPT = "\n\nHuman: What is a fjord?\n\nAssistant:"
PROMPTS = [PROMPT, "\n\nHuman: Hi\n\nAssistant:", PROMPT, "Q: ", "\n\nHuman: Why?\n\nAssistant:"]
REPLIES = ["A long arm of the sea.", "Hi!", "", "x" * 60, "Because it is."]
SMALL = {
    "vocab_size": 260,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
CONFIGS = {
    "llama": lambda **more: hf.LlamaConfig(**SMALL, **more),
    "gpt2": lambda **more: hf.GPT2Config(vocab_size=260, n_embd=16, n_layer=2, n_head=2, **more),
    "bert": lambda **more: hf.BertConfig(**SMALL, **more),
    "roberta": lambda **more: hf.RobertaConfig(**SMALL, **more),
}


@pytest.fixture
def saved(tmp_path):
    """`saved("bert", num_labels=3)`: a folder with random weights, large enough to tell texts apart."""

    def save(kind: str, tokenizer=None, **config) -> str:
        torch.manual_seed(0)
        model = hf.AutoModelForSequenceClassification.from_config(CONFIGS[kind](**config)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
        folder = tmp_path / f"{kind}-{len(list(tmp_path.iterdir()))}"
        export(folder, model, tokenizer or byte_tokenizer(), weights_of(model))
        return str(folder)

    return save


def alone(path: str, text: str, second: str | None = None) -> torch.Tensor:
    """(labels,) from the model's own forward on one text, without padding or anything of ours."""
    model = hf.AutoModelForSequenceClassification.from_pretrained(path).eval()
    ids = hf.AutoTokenizer.from_pretrained(path)(text, second, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        return model(ids).logits[0].double()


def joined(prompt: str, reply: str) -> str:
    return prompt + reply if prompt.endswith(" ") else f"{prompt} {reply}"


# --- what is read


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("llama", {"pad_token_id": None}),
        ("llama", {"pad_token_id": 2}),
        ("gpt2", {"pad_token_id": 1}),  # the padding token is the end of sequence, as many GPT-2 reward models have it
        ("bert", {"pad_token_id": 0}),
        ("roberta", {"pad_token_id": 2, "max_position_embeddings": 300}),
    ],
)
@pytest.mark.slow
def test_the_score_is_the_models_own_on_each_text_whatever_the_batch(saved, kind, config):
    path = saved(kind, num_labels=1, **config)
    end = "" if kind in ("bert", "roberta") else "</s>"
    want = [float(alone(path, joined(*one) + end)) for one in zip(PROMPTS, REPLIES, strict=True)]
    assert max(want) - min(want) > 0.03
    for budget in (1, 150, 10**6):
        assert Classifier(path=path, micro_batch_tokens=budget).scores(PROMPTS, REPLIES) == pytest.approx(
            want, abs=1e-5
        )


@pytest.mark.parametrize("labels", [1, 2, 3])
def test_the_probability_is_transformers_own(saved, labels):
    """A sigmoid of one output, and a softmax over several."""
    path = saved("bert", num_labels=labels, pad_token_id=0)
    outputs = [alone(path, joined(*one)) for one in zip(PROMPTS, REPLIES, strict=True)]
    want = [float(out.sigmoid()[0] if labels == 1 else out.softmax(0)[labels - 1]) for out in outputs]
    label = None if labels == 1 else labels - 1
    got = Classifier(path=path, label=label, probability=True).scores(PROMPTS, REPLIES)
    assert got == pytest.approx(want, abs=1e-6)


def test_a_model_without_padding_is_lent_a_token_for_one_batch_only(saved):
    """`<s>` stands for padding beside the first text, and is the last token of the second."""
    path = saved("llama", num_labels=1, pad_token_id=None)
    got = Classifier(path=path, eos=False, micro_batch_tokens=1).scores(["a longer", "Hi"], ["one", "<s>"])
    assert got == pytest.approx([float(alone(path, text)) for text in ("a longer one", "Hi <s>")])


@pytest.mark.parametrize("padding", [True, False])
def test_a_reward_model_trained_here_reads_what_it_was_trained_on(tmp_path, padding):
    """The engine's scalar of prompt + completion + end of sequence, and the judge's of the same text, stripped."""
    tokenizer = byte_tokenizer()
    if padding:
        tokenizer.pad_token = "<s>"
    fields = {"model_type": "llama", **{key: value for key, value in SMALL.items() if key != "vocab_size"}}

    class Source:
        quantize = None

        def load_model(self, tokenizer, seed, head):
            return from_config(fields, tokenizer, seed, head, "float32")

    model = load_policy(Source(), tokenizer, seed=0, head="scalar")
    with torch.no_grad():
        model.score.weight *= 50
    rows = [
        Row(str(i), prompt, (Completion(" yes"), Completion(" no, never")), group=str(i))
        for i, prompt in enumerate([PROMPT, "\n\nHuman: Hi\n\nAssistant:"])
    ]
    trees = tokenize(rows, tokenizer, TokensConfig()).trees
    with torch.no_grad():
        want = Scorer(model)(lay_out(list(trees), "padded"))["scalar"].tolist()
    export(tmp_path / "policy", model, tokenizer, weights_of(model))
    judge = Classifier(path=str(tmp_path / "policy"))
    prompts = [row.prompt for row in rows for _ in row.completions]
    assert judge.scores(prompts, ["yes", "no, never"] * 2) == pytest.approx(want, abs=1e-4)
    assert judge.prefers(prompts[::2], ["yes"] * 2, ["no, never"] * 2) == [float(want[i] > want[i + 1]) for i in (0, 2)]


def test_a_chat_goes_through_the_template_if_there_is_one(saved):
    chat = [{"role": "user", "content": "Hi"}]
    with_template = saved("llama", byte_tokenizer(template=CHATML), num_labels=1)
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"
    for after_turn, read in ((False, text), (True, text + "\n")):
        assert Classifier(path=with_template, after_turn=after_turn).scores([chat], ["Hello"]) == pytest.approx(
            [float(alone(with_template, read))]
        )
    without = saved("llama", num_labels=1)
    assert Classifier(path=without).scores([chat], ["Hello"]) == pytest.approx(
        [float(alone(without, "Hi\n\nHello</s>"))]
    )


def test_a_template_that_writes_bos_does_not_get_a_second_one(saved):
    path = saved("llama", byte_tokenizer(prepends_bos=True, template="<s>" + CHATML), num_labels=1)
    text = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"  # the tokenizer puts its own
    assert Classifier(path=path).scores([[{"role": "user", "content": "Hi"}]], ["Hello"]) == pytest.approx(
        [float(alone(path, text))]
    )


def test_special_tokens_of_the_text_are_not_doubled(saved):
    """Training reads one BOS of a prompt that begins with it, and so does the judge."""
    path = saved("llama", byte_tokenizer(prepends_bos=True), num_labels=1)
    for prompt, reply in (("<s>Hi", "Hello"), ("Hi", "Hello</s>")):
        assert Classifier(path=path).scores([prompt], [reply]) == pytest.approx([float(alone(path, "Hi Hello</s>"))])


def test_the_prompt_the_pair_and_the_end_are_as_asked(saved):
    path = saved("llama", num_labels=1)
    cases = [
        ({"prompt": False}, ("Hello</s>",)),
        ({"eos": False}, ("Hi Hello",)),
        ({"pair": True}, ("Hi", "Hello</s>")),
    ]
    for fields, read in cases:
        assert Classifier(path=path, **fields).scores(["Hi"], ["Hello"]) == pytest.approx([float(alone(path, *read))])
    bert = saved("bert", num_labels=1)
    assert Classifier(path=bert, eos=True).scores(["Hi"], ["Hello"]) == pytest.approx(
        [float(alone(bert, "Hi Hello</s>"))]
    )


def test_of_a_long_text_the_end_is_read_and_a_warning_says_so(saved):
    path = saved("llama", byte_tokenizer(prepends_bos=True), num_labels=1)
    with pytest.warns(UserWarning, match="1 of 2 texts have more than 12 tokens"):
        got = Classifier(path=path, max_length=12).scores(["ab", "0123456789"], ["c", "hello"])
    assert got == pytest.approx([float(alone(path, "ab c</s>")), float(alone(path, "6789 hello</s>"))])


def test_the_models_own_positions_are_a_limit_too(saved):
    path = saved("bert", num_labels=1, max_position_embeddings=8)
    with pytest.warns(UserWarning, match="1 of 1 texts have more than 8 tokens"):
        assert Classifier(path=path).scores(["0123456789"], ["yes"]) == pytest.approx([float(alone(path, "6789 yes"))])


# --- which number is the score


def test_of_several_labels_the_score_is_log_odds(saved):
    path = saved(
        "bert", num_labels=3, id2label={0: "bad", 1: "fair", 2: "good"}, label2id={"bad": 0, "fair": 1, "good": 2}
    )
    probs = alone(path, "Hi you").softmax(0)
    for label in (2, "good"):
        (got,) = Classifier(path=path, label=label).scores(["Hi"], ["you"])
        assert got == pytest.approx(float(probs[2].log() - (1 - probs[2]).log()), abs=1e-5)


@pytest.mark.parametrize("kind", ["regression", "multi_label_classification"])
def test_of_outputs_that_stand_for_themselves_it_is_the_output(saved, kind):
    path = saved("bert", num_labels=3, problem_type=kind)
    assert Classifier(path=path, label=1).scores(["Hi"], ["you"]) == pytest.approx([float(alone(path, "Hi you")[1])])


def test_no_texts_no_scores_and_the_model_is_loaded_once(saved, monkeypatch):
    judge = Classifier(path=saved("bert", num_labels=1))
    assert judge.scores([], []) == []
    monkeypatch.setattr(hf.AutoModelForSequenceClassification, "from_pretrained", None)
    assert math.isfinite(judge.scores(["a"], ["b"])[0])


def test_bfloat16_is_near(saved):
    path = saved("llama", num_labels=1)
    exact, near = (
        np.array(Classifier(path=path, dtype=dtype).scores(PROMPTS, REPLIES)) for dtype in ("float32", "bfloat16")
    )
    assert 0 < abs(exact - near).max() < 0.1 * abs(exact).max()


# --- mistakes


@pytest.mark.parametrize(
    ("label", "problem"),
    [
        (
            None,
            "has 2 labels; name the one that is the score; expected one of POSITIVE, NEGATIVE, or an index from 0 to 1",
        ),
        (2, "has no label 2; expected one of"),
        ("POSITVE", "has no label 'POSITVE'; expected one of .*; did you mean 'POSITIVE'\\?"),
    ],
)
def test_a_label_that_is_not_there_is_reported_before_any_weight_is_read(saved, label, problem):
    path = saved("bert", num_labels=2, id2label={0: "POSITIVE", 1: "NEGATIVE"}, label2id={"POSITIVE": 0, "NEGATIVE": 1})
    with pytest.raises(UserError, match=problem):
        Classifier(path=path, label=label).ready()


def test_a_folder_that_is_not_there_is_reported_with_the_nearest(saved, tmp_path):
    path = saved("bert", num_labels=1)
    (tmp_path / "reward").mkdir()
    with pytest.raises(UserError, match=r"no such folder: .*/rewrad; did you mean 'reward'\?"):
        Classifier(path=str(tmp_path / "rewrad")).ready()
    with pytest.raises(UserError, match=r"no config could be loaded from '.*reward'"):
        Classifier(path=str(tmp_path / "reward")).scores(["a"], ["b"])
    Classifier(path=path).ready()


def test_a_language_model_is_no_classifier(tmp_path):
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**SMALL))
    export(tmp_path, model, byte_tokenizer(), weights_of(model))
    with pytest.raises(
        UserError, match=r"is not a classifier: its weights lack score\.weight; expected a sequence class"
    ):
        Classifier(path=str(tmp_path), label=0).scores(["a"], ["b"])

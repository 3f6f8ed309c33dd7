"""What is saved comes back to the bit; what is damaged is passed over."""

from __future__ import annotations

import json
import signal
from contextlib import nullcontext

import pytest
import torch
import transformers
from architectures import FOREST, VOCABULARY, build
from tokenizers import Tokenizer, models
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerFast,
)

from alignzoo.core.errors import UserError
from alignzoo.core.signals import GracefulShutdown, Interrupted
from alignzoo.recipe.optimizers import SGD, AdamW, RMSprop
from alignzoo.training import checkpoint
from alignzoo.training.optimizers import make_optimizer
from alignzoo.training.records import read_lines
from alignzoo.training.run_folder import RunFolder

OPTIMIZERS = [AdamW(learning_rate=0.01), RMSprop(learning_rate=0.01), SGD(learning_rate=0.01, momentum=0.9)]


@pytest.fixture(scope="module")
def tokenizer():
    words = {"<eos>": 0} | {f"w{i}": i for i in range(1, VOCABULARY)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(words, "<eos>")), eos_token="<eos>")


def step(model, optimizer, seed):
    ids = torch.randint(0, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(seed))
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize("config", OPTIMIZERS, ids=lambda config: config.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "mixtral"])  # tied; saved under other names; fused
def test_training_goes_on_bit_by_bit(tmp_path, tokenizer, config, dtype, name):
    model = build(FOREST[name]()).to(dtype)
    optimizer = make_optimizer(config, model)
    for i in range(3):
        step(model, optimizer, i)
    checkpoint.save(tmp_path, 3, model, tokenizer, optimizer, keep=2)
    for i in range(3, 6):
        step(model, optimizer, i)

    resumed = build(FOREST[name](), seed=5).to(dtype)
    other = make_optimizer(config, resumed)
    good, damaged = checkpoint.latest(tmp_path)
    assert (good.step, damaged) == (3, [])
    checkpoint.restore(good, resumed, other)
    for i in range(3, 6):
        step(resumed, other, i)
    for key, value in model.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_checkpoint_is_a_hugging_face_folder(tmp_path, tokenizer):
    model = build(FOREST["llama"]())
    path = checkpoint.save(tmp_path, 7, model, tokenizer, make_optimizer(OPTIMIZERS[2], model), keep=1)
    again = AutoModelForCausalLM.from_pretrained(path)
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert AutoTokenizer.from_pretrained(path).eos_token == "<eos>"
    assert path.name == "step-000007"


@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox", "mixtral"])
def test_shards_are_read_into_the_model_itself(tmp_path, tokenizer, name, monkeypatch):
    """No second model is made, and the checkpoint is a folder for from_pretrained all the same."""
    model = build(FOREST[name]())
    optimizer = make_optimizer(OPTIMIZERS[2], model)
    whole = type(model).save_pretrained
    monkeypatch.setattr(type(model), "save_pretrained", lambda self, f, **o: whole(self, f, max_shard_size="20KB", **o))
    path = checkpoint.save(tmp_path, 1, model, tokenizer, optimizer, keep=1)
    assert len(list(path.glob("model*.safetensors"))) > 3
    again = AutoModelForCausalLM.from_pretrained(path).state_dict()
    resumed = build(FOREST[name](), seed=5)
    places = {key: value.data_ptr() for key, value in resumed.state_dict().items()}
    monkeypatch.setattr(transformers.PreTrainedModel, "from_pretrained", None)
    checkpoint.restore(checkpoint.latest(tmp_path)[0], resumed, make_optimizer(OPTIMIZERS[2], resumed))
    for key, value in resumed.state_dict().items():
        assert torch.equal(value, model.state_dict()[key])
        assert torch.equal(value, again[key])
        assert value.data_ptr() == places[key]


def test_a_checkpoint_of_another_model_is_rejected_before_anything_is_changed(tmp_path, tokenizer):
    model = build(FOREST["llama"]())
    checkpoint.save(tmp_path, 1, model, tokenizer, make_optimizer(OPTIMIZERS[2], model), keep=1)
    config = FOREST["llama"]()
    config.intermediate_size = 32
    other = build(config)
    before = {key: value.clone() for key, value in other.state_dict().items()}
    with pytest.raises(UserError, match=r"'model\.layers\.0\.mlp\.down_proj\.weight' is not in this model"):
        checkpoint.restore(checkpoint.latest(tmp_path)[0], other, make_optimizer(OPTIMIZERS[2], other))
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_states_and_a_moving_reference_come_back_bit_by_bit(tmp_path, tokenizer, name):
    """The policy goes on, the reference with it; another start gets both back, tied weights too."""
    model, moving = build(FOREST[name]()), build(FOREST[name](), seed=1)
    optimizer = make_optimizer(OPTIMIZERS[0], model)
    step(model, optimizer, 0)
    states = [{"mean": 0.1 + 0.2, "deviation": 1e-17}, {}]
    checkpoint.save(tmp_path, 1, model, tokenizer, optimizer, 2, states, dict(moving.named_parameters()))
    kept = {key: value.clone() for key, value in moving.state_dict().items()}
    with torch.no_grad():
        for parameter in moving.parameters():
            parameter.add_(1)

    resumed, other = build(FOREST[name](), seed=5), build(FOREST[name](), seed=6)
    good, _ = checkpoint.latest(tmp_path)
    checkpoint.restore(good, resumed, make_optimizer(OPTIMIZERS[0], resumed), dict(other.named_parameters()))
    assert good.states == states
    assert other.state_dict().keys() == kept.keys()
    assert all(torch.equal(value, kept[key]) for key, value in other.state_dict().items())
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in resumed.state_dict().items())


def test_a_reward_model_is_saved_with_its_head(tmp_path, tokenizer):
    config = transformers.LlamaConfig(**FOREST["llama"]().to_dict() | {"num_labels": 1})
    model = AutoModelForSequenceClassification.from_config(config).eval()
    checkpoint.save(tmp_path, 1, model, tokenizer, make_optimizer(OPTIMIZERS[0], model), keep=1)
    resumed = AutoModelForSequenceClassification.from_config(config).eval()
    assert not torch.equal(resumed.score.weight, model.score.weight)
    checkpoint.restore(checkpoint.latest(tmp_path)[0], resumed, make_optimizer(OPTIMIZERS[0], resumed))
    assert torch.equal(resumed.score.weight, model.score.weight)


@pytest.fixture
def three(tmp_path, tokenizer):
    """Three checkpoints were written, two are kept."""
    model = build(FOREST["llama"]())
    optimizer = make_optimizer(OPTIMIZERS[0], model)
    for i in range(1, 4):
        step(model, optimizer, i)
        checkpoint.save(tmp_path, i, model, tokenizer, optimizer, keep=2)
    return tmp_path


def test_the_last_ones_are_kept(three):
    assert sorted(path.name for path in three.iterdir()) == ["step-000002", "step-000003"]


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "about.json", "config.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped bit", "missing"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(three, name, damage):
    file = three / "step-000003" / name
    raw = bytearray(file.read_bytes())
    if damage == "missing":
        file.unlink()
    else:
        raw[-1] ^= 64
        file.write_bytes(raw[:-5] if damage == "truncated" else raw)
    good, damaged = checkpoint.latest(three)
    assert good.step == 2
    assert [path.name for path in damaged] == ["step-000003"]


def test_a_checkpoint_that_says_another_step_or_state_is_damaged(three):
    """The numbers that are no tensors are under a digest too."""
    about = three / "step-000003" / "about.json"
    about.write_text(about.read_text().replace('"step": 3', '"step": 2'))
    good, damaged = checkpoint.latest(three)
    assert (good.step, len(damaged)) == (2, 1)


def test_an_interrupted_write_leaves_the_last_checkpoint_and_is_swept_by_the_next(three, tokenizer):
    (three / ".step-000004.12-34.tmp").mkdir()
    (three / ".step-000004.12-34.tmp" / "about.json").write_text(json.dumps({"step": 4, "files": {}}))
    assert checkpoint.latest(three)[0].step == 3
    model = build(FOREST["llama"]())
    checkpoint.save(three, 4, model, tokenizer, make_optimizer(OPTIMIZERS[0], model), keep=2)
    assert sorted(path.name for path in three.iterdir()) == ["step-000003", "step-000004"]


def test_the_last_of_more_than_a_million_steps_is_the_last(tmp_path, tokenizer):
    model = build(FOREST["llama"]())
    for step in (999_999, 1_000_000):
        checkpoint.save(tmp_path, step, model, tokenizer, make_optimizer(OPTIMIZERS[0], model), keep=1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1000000"]
    assert checkpoint.latest(tmp_path)[0].step == 1_000_000


def test_no_checkpoint_is_no_error(tmp_path):
    assert checkpoint.latest(tmp_path / "none") == (None, [])


def test_a_resumed_run_has_the_records_of_its_checkpoint(tmp_path, tokenizer):
    """Also where the disk lost lines that were written before it, or a crash tore the last one."""
    folder, model = RunFolder(tmp_path), build(FOREST["llama"]())
    for i in range(1, 4):
        folder.append(folder.metrics, {"kind": "train", "step": i})
        folder.append(folder.timings, {"step": i})
    want = [record.read_bytes() for record in folder.records]
    optimizer = make_optimizer(OPTIMIZERS[2], model)
    path = checkpoint.save(folder.checkpoints, 3, model, tokenizer, optimizer, keep=1, records=folder.records)
    folder.append(folder.metrics, {"kind": "train", "step": 4})
    with open(folder.metrics, "a") as file:
        file.write('{"kind": "tra')
    folder.timings.unlink()
    folder.restore_records(path)
    assert [record.read_bytes() for record in folder.records] == want
    folder.restore_records(None)
    assert read_lines(folder.metrics) == []
    assert folder.summary() is None


def test_one_process_at_a_time_works_on_a_run(tmp_path):
    with RunFolder(tmp_path).held(), pytest.raises(UserError, match="another process is working on this run"):
        with RunFolder(tmp_path).held():
            pass
    with RunFolder(tmp_path).held():
        pass


SIGNALS = {signal.SIGINT: 130, signal.SIGTERM: 143}


def stop(number, times=1, finishing=False) -> Interrupted:
    """The exception that signals end a block with."""
    with pytest.raises(Interrupted) as stopped, GracefulShutdown() as stopping:  # noqa: PT012
        stopping.doing = "stopped while reading"
        with stopping.uninterruptible() if finishing else nullcontext():
            for _ in range(times):
                signal.raise_signal(number)
            DONE.append(number)
    return stopped.value


DONE = []


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_at_once_and_says_what_was_being_done(number):
    DONE.clear()
    stopped = stop(number)
    assert (str(stopped), stopped.code, stopped.at_once) == ("stopped while reading", SIGNALS[number], False)
    assert not DONE


@pytest.mark.parametrize("number", SIGNALS)
def test_what_is_to_be_finished_is_finished_first_and_the_second_signal_interrupts_it(number):
    DONE.clear()
    stopped = stop(number, finishing=True)
    assert (str(stopped), stopped.code, stopped.at_once) == ("stopped while reading", SIGNALS[number], False)
    assert DONE == [number]
    stopped = stop(number, times=2, finishing=True)
    assert "stopped at once" in str(stopped)
    assert (stopped.code, stopped.at_once) == (SIGNALS[number], True)
    assert DONE == [number]


def test_a_signal_that_comes_while_processes_agree_is_not_forgotten():
    """The others received no signal and go on: all stop at their next exchange."""
    told = []

    def agree(asked):
        told.append(asked)
        if len(told) == 1:
            signal.raise_signal(signal.SIGTERM)
        return asked

    with GracefulShutdown() as stopping:
        stopping.agree = agree
        with stopping.uninterruptible(agreed=False):
            with stopping.uninterruptible():
                pass
            with pytest.raises(Interrupted) as stopped, stopping.uninterruptible():
                pass
            stopping.asked = 0
    assert told == [0, signal.SIGTERM]
    assert stopped.value.code == 143

"""Each loss against open-unlearning's formula, written out on whole logits, and a run that forgets."""

import json
from dataclasses import replace

import pytest
import torch
import yaml
from alignzoo_unlearn import OBJECTIVES, IdkDPO

import alignzoo
from alignzoo.cli.describe import have
from alignzoo.models.logits import token_statistics
from alignzoo.testing import completions, pair, run_checks

BY_NAME = {cls.name: cls for cls in OBJECTIVES}
FORGET = [1.0, 0.0, 1.0]
LENGTHS = [3, 2, 4]
STATISTICS = ("forward_kl", "entropy")
V = 7


@pytest.fixture(scope="module")
def world():
    """Logits of policy and start, labels of three rows, two to forget, and the same as an objective sees it."""
    torch.manual_seed(0)
    own = [torch.randn(n, V, dtype=torch.float64, requires_grad=True) for n in LENGTHS]
    ref = [torch.randn(n, V, dtype=torch.float64) for n in LENGTHS]
    labels = [torch.randint(V, (n,)) for n in LENGTHS]
    found = [token_statistics(a, y, STATISTICS, b) for a, b, y in zip(own, ref, labels, strict=True)]
    log_prob, *values, ref_log_prob = (torch.cat(column) for column in zip(*found, strict=True))
    plain = [tokens.tolist() for tokens in log_prob.split(LENGTHS)]
    scored = completions(plain, [one.tolist() for one in ref_log_prob.split(LENGTHS)], columns={"forget": FORGET},
                         statistics={name: [one.tolist() for one in each.split(LENGTHS)]
                                     for name, each in zip(STATISTICS, values, strict=True)})  # fmt: skip
    statistics = dict(zip(STATISTICS, values, strict=True))
    tokens = replace(scored.tokens, log_prob=log_prob, _statistics=statistics)
    scored = replace(scored, _log_prob=tokens.sum(log_prob), _tokens=tokens)
    return own, ref, labels, scored


def wanted(name: str, own, ref, labels) -> torch.Tensor:
    """open-unlearning's losses of the rows to forget or to keep, from logits."""
    rows = [i for i in range(3) if (FORGET[i] == 1) != name.startswith("retain")]
    log_pi = [own[i].log_softmax(1)[range(LENGTHS[i]), labels[i]] for i in rows]
    log_ref = [ref[i].log_softmax(1)[range(LENGTHS[i]), labels[i]] for i in rows]
    flat = torch.cat(log_pi)
    if name == "npo":
        terms = [
            -2 / 0.1 * (1 / (1 + (0.1 * (a.sum() - b.sum())).exp())).log() for a, b in zip(log_pi, log_ref, strict=True)
        ]
        return torch.stack(terms).mean()
    if name == "simnpo":
        return torch.stack([-2 / 4.5 * (1 / (1 + (4.5 * one.mean()).exp())).log() for one in log_pi]).mean()
    if name == "undial":
        lowered = [ref[i] - 10.0 * torch.nn.functional.one_hot(labels[i], V) for i in rows]
        each = [-(b.softmax(1) * own[i].log_softmax(1)).sum(1) for i, b in zip(rows, lowered, strict=True)]
        return torch.cat(each).mean()
    if name == "ceu":  # without the first token of each
        logits, true = torch.cat([own[i][1:] for i in rows]), torch.cat([labels[i][1:] for i in rows])
        target = logits.detach().scatter(1, true[:, None], -torch.inf).softmax(1)
        return torch.nn.functional.cross_entropy(logits, target)
    if name == "retain_kl":
        logs = [(ref[i].log_softmax(1), own[i].log_softmax(1)) for i in rows]
        return torch.cat([(a.exp() * (a - b)).sum(1) for a, b in logs]).mean()
    weight = {"grad_ascent": 1.0, "retain_nll": -1.0, "wga": flat.exp(), "satimp": flat.exp() ** 5 * (1 - flat.exp())}[
        name
    ]
    return ((weight.detach() if isinstance(weight, torch.Tensor) else weight) * flat).mean()


@pytest.mark.parametrize("name", [name for name in BY_NAME if name != "idk_dpo"])
def test_value_and_gradient_are_open_unlearnings(world, name):
    own, ref, labels, scored = world
    objective = BY_NAME[name]()
    loss = objective.loss(scored).sum() / objective.weight(scored).sum()
    expected = wanted(name, own, ref, labels)
    got, want = (
        torch.autograd.grad(value, own, retain_graph=True, materialize_grads=True) for value in (loss, expected)
    )
    for a, b in zip(got, want, strict=True):
        assert a.flatten().tolist() == pytest.approx(b.flatten().tolist(), abs=1e-12)
    constant = 0.0
    if name == "undial":  # the start's entropy over Z, a mean over the tokens to forget
        parts = [(ref[i].log_softmax(1), labels[i]) for i in (0, 2)]
        z = [1 - (1 - torch.tensor(-10.0).double().exp()) * p.exp()[range(len(y)), y] for p, y in parts]
        constant = float(torch.cat([-(p.exp() * p).sum(1) / one for (p, _), one in zip(parts, z, strict=True)]).mean())
    assert float(loss) + constant == pytest.approx(float(expected), rel=1e-12)


def test_idk_dpo_is_dpo_of_the_rows_to_forget():
    one = pair([-3.0, -9.0], [-5.0, -6.0], ref_chosen=[-6.0, -7.0], ref_rejected=[-5.0, -8.0])
    flags = {"forget": torch.tensor([1.0, 0.0], dtype=torch.float64)}
    one = one.with_sides(*(replace(side, _columns=flags) for side in one.sides().values()))
    dpo = alignzoo.get_objective("dpo", beta=0.1).loss(one)
    assert IdkDPO().loss(one).tolist() == pytest.approx([20 * float(dpo[0]), 0.0])
    assert IdkDPO().weight(one).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("cls", OBJECTIVES, ids=lambda cls: cls.name)
def test_it_conforms(cls):
    assert {check: problem for check, problem in run_checks(cls()).items() if problem} == {}


def test_they_are_listed_by_the_rows_that_they_need():
    assert {have(cls) for cls in OBJECTIVES if cls.data == "chosen"} == {"marked"}


def test_a_run_forgets_what_it_is_told_and_keeps_the_rest(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGNZOO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("ALIGNZOO_CACHE", str(tmp_path / "cache"))
    rows = [{"prompt": f"{i} ", "completion": "yes" if i % 2 else "no", "forget": bool(i % 2)} for i in range(40)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "plugins": [alignzoo_unlearn_file()], "reporters": [], "data": {"name": "files", "path": "rows.jsonl"},
        "objective": [{"name": "npo", "beta": 0.5}, "retain_nll"], "eval": {"replies": {"num_prompts": 0}},
        "model": {"config": {"model_type": "llama", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
                             "num_attention_heads": 2, "max_position_embeddings": 64}, "tokenizer": {"train": "bytes"}},
        "train": {"batch_size": 8, "max_steps": 12, "epochs": 4, "optimizer": {"name": "adamw", "learning_rate": 0.01}},
    }  # fmt: skip
    (tmp_path / "unlearn.yaml").write_text(yaml.safe_dump(recipe))
    result = alignzoo.run(tmp_path / "unlearn.yaml")
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    assert steps[0]["loss_npo"] == pytest.approx(4 * torch.log(torch.tensor(2.0)).item(), rel=1e-5), "2 / beta log 2"
    assert steps[-1]["loss_npo"] < steps[0]["loss_npo"]
    assert steps[-1]["loss_retain_nll"] < steps[0]["loss_retain_nll"]


def alignzoo_unlearn_file() -> str:
    """The plugin's file, for where it is not installed."""
    import alignzoo_unlearn

    return str(alignzoo_unlearn.__file__)

"""`train.compile` gives the same numbers, leaves the model as it was, and says what it lacks."""

from __future__ import annotations

import shutil

import pytest
import torch
from architectures import FOREST, build

from alignzoo.core.errors import UserError
from alignzoo.data.trees import Branch, Tree
from alignzoo.models import compile as compile_module
from alignzoo.models.compile import compiled_layers, disable_tf32
from alignzoo.scoring.forest import lay_out
from alignzoo.scoring.scorer import Scorer

CPU = torch.device("cpu")


def forests():
    """Of two widths."""
    draw = torch.Generator().manual_seed(0)

    def some(count):
        return torch.randint(1, 97, (count,), generator=draw, dtype=torch.int32).numpy()

    trees = [Tree(str(i), some(9 + i), (Branch(some(5)), Branch(some(7)))) for i in range(5)]
    return lay_out(trees, "packed"), lay_out(trees[1:], "packed")


def measured(model, forest):
    model.zero_grad()
    found = Scorer(model, "packed")(forest)["log_prob"]
    found.square().sum().backward()
    return found.detach(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++", "c++"))), reason="no C++ compiler")
def test_compiled_layers_compute_the_same():
    model = build(FOREST["llama"]())
    want = [measured(model, forest) for forest in forests()]
    with compiled_layers(model, True, CPU):
        assert all(layer._compiled_call_impl for layer in model.model.layers)
        got = [measured(model, forest) for forest in forests()]
    assert not any(layer._compiled_call_impl for layer in model.model.layers)
    for (log_prob, gradient), (compiled, compiled_gradient) in zip(want, got, strict=True):
        assert (compiled - log_prob).abs().max() <= 1e-5 * log_prob.abs().max()
        assert (compiled_gradient - gradient).norm() <= 1e-5 * gradient.norm()


def test_nothing_is_compiled_unasked():
    model = build(FOREST["llama"]())
    with compiled_layers(model, False, CPU):
        assert not any(layer._compiled_call_impl for layer in model.model.layers)


def test_a_machine_without_a_compiler_is_an_error(monkeypatch):
    def compiled(function):
        def fails(*some):
            raise RuntimeError("No working C++ compiler found\nand more")

        return fails

    monkeypatch.setattr(compile_module.torch, "compile", compiled)
    message = r"can't compile on this machine: No working C\+\+ compiler found"
    with pytest.raises(UserError, match=message), compiled_layers(build(FOREST["llama"]()), True, CPU):
        pass


def test_a_model_without_layers_is_an_error():
    with (
        pytest.raises(UserError, match=r"train\.compile: Linear has no layers"),
        compiled_layers(torch.nn.Linear(2, 2), True, CPU),
    ):
        pass


def test_float32_is_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.set_float32_matmul_precision("high")
    disable_tf32()
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32

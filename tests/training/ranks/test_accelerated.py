"""What `accelerate launch` may ask for, and what is said of the rest."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest
from jobs import ZERO

from alignzoo.core.distributed import accelerate_env
from alignzoo.core.errors import UserError

STAGE = "ACCELERATE_DEEPSPEED_ZERO_STAGE"
OFFLOAD = "ACCELERATE_DEEPSPEED_OFFLOAD_OPTIMIZER_DEVICE"


@pytest.fixture
def launch(monkeypatch):
    """The stage that a launch asks for, with a DeepSpeed of that version installed, or none."""

    def of(environment: dict[str, str], installed: str | None = "0.19.8") -> int:
        def version(name: str) -> str:
            if installed is None:
                raise PackageNotFoundError(name)
            return installed

        monkeypatch.setattr(accelerate_env, "version", version)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return accelerate_env.stage_asked()

    return of


@pytest.mark.parametrize(
    ("environment", "stage"),
    [
        ({}, 0),
        (ZERO, 2),
        (ZERO | {STAGE: "1", OFFLOAD: "none", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "1"}, 1),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, 2),  # accelerate's own default
    ],
)
def test_stages_1_and_2_can_be_had(launch, environment, stage):
    assert launch(environment) == stage


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({STAGE: "3"}, "deepspeed_config.zero_stage: ZeRO stage 3 is not supported; expected 1, 2, or FSDP version 2"),
        ({STAGE: "0"}, "deepspeed_config.zero_stage: ZeRO stage 0 is not supported; expected 1, 2, or"),
        ({OFFLOAD: "cpu"}, "deepspeed_config.offload_optimizer_device: offloading is not supported; expected none"),
        (
            {"ACCELERATE_DEEPSPEED_OFFLOAD_PARAM_DEVICE": "nvme"},
            "deepspeed_config.offload_param_device: offloading is not supported; expected none",
        ),
        (
            {"ACCELERATE_GRADIENT_CLIPPING": "1.0"},
            "deepspeed_config.gradient_clipping: the recipe decides that; expected train.max_grad_norm in the recipe",
        ),
        (
            {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4"},
            "deepspeed_config.gradient_accumulation_steps: the recipe decides that; expected train.batch_size",
        ),
        (
            {"ACCELERATE_DEEPSPEED_CONFIG_FILE": "ds.json"},
            "deepspeed_config.deepspeed_config_file: DeepSpeed's own settings are not read; expected zero_stage alone",
        ),
    ],
)
def test_what_else_deepspeed_can_do_is_rejected(launch, environment, words):
    with pytest.raises(UserError) as error:
        launch(ZERO | environment)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("installed", "words"),
    [
        (None, "DeepSpeed, which is not installed"),
        ("0.18.9", "DeepSpeed 0.18.9 is too old; expected 0.19.8 or later"),
    ],
)
def test_a_deepspeed_that_is_not_there_is_asked_for(launch, installed, words):
    with pytest.raises(UserError) as error:
        launch(ZERO, installed)
    assert words in str(error.value)
    assert "pip install 'alignzoo[deepspeed]'" in str(error.value)

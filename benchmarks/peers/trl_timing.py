"""A callback that times the steps of any of TRL's trainers."""

import torch
from transformers import TrainerCallback


class Timing(TrainerCallback):
    """A step from its first micro-batch to the end of the optimizer's step: collating and logging are outside of it."""

    def __init__(self, clock):
        self.clock = clock

    def on_step_begin(self, *args, **kwargs):
        self.clock.begin()

    def on_step_end(self, *args, **kwargs):
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()
        self.clock.end()

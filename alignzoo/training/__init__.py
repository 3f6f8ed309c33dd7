"""One run: phases, loop, step, checkpoints, run folder."""

from alignzoo.core.lazy import lazy_exports

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "checkpoint": ["Checkpoint"],
        "export": ["export_run"],
        "loop": ["Training"],
        "row_scores": ["write_scores"],
        "needed_runs": ["folder_of"],
        "run": ["RunResult", "run_resolved"],
        "run_folder": ["RunFolder"],
        "optimizers": ["make_optimizer"],
        "schedule": ["total_steps"],
        "step": ["Engine"],
        "summary": ["FinishedRun", "summarize"],
    },
)

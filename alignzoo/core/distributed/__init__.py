"""core.distributed."""

"""Where the checkout and the files beside it are."""

from pathlib import Path

ROOT = Path(__file__).parent.parent

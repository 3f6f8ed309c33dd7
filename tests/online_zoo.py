"""The objectives of plugins/alignzoo-online, which a checkout has whether it is installed or not."""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "plugins" / "alignzoo-online"
sys.path.insert(0, str(FOLDER))

from alignzoo_online import OBJECTIVES  # noqa: E402

ONLINE = {cls.name: cls for cls in OBJECTIVES}

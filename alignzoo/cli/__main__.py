"""`python -m alignzoo.cli`, the command `alignzoo`."""

import sys

if not sys.flags.safe_path and sys.path:
    del sys.path[0]  # the working directory, which must not shadow installed packages

from alignzoo.cli import main

if __name__ == "__main__":
    main()

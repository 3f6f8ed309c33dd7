"""`python -m alignzoo`: the same as the command `alignzoo`."""

import sys

if not sys.flags.safe_path and sys.path:
    del sys.path[0]  # the working directory, where Python looks first: what lies in it is no installed package

from alignzoo.cli import main

if __name__ == "__main__":
    main()

"""`python -m alignzoo`."""

from alignzoo.cli import main

if __name__ == "__main__":
    main()

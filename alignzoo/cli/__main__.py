"""`python -m alignzoo.cli`."""

from alignzoo.cli import main

if __name__ == "__main__":
    main()

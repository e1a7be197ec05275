"""``python -m fovea`` is the command line."""

from fovea.cli import main

if __name__ == "__main__":
    main()

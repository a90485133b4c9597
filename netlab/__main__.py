"""`netlab` and `python -m netlab`."""

from netlab.cli import main

if __name__ == "__main__":
    main()

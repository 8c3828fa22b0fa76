"""`python -m lcengine`: the command line without the console script."""

from __future__ import annotations

from lcengine.cli import main

if __name__ == "__main__":
    main()

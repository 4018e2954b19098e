"""``python -m gammastar``."""

from gammastar.cli import main

if __name__ == "__main__":
    main()

"""``python -m recipes.tiny``."""

import sys

from recipes.tiny.commands import main

if __name__ == "__main__":  # workers of a data loader import this module again
    sys.exit(main())

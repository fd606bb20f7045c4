"""Pre-train an encoder on unlabelled images: python ssl_pretrain.py RECIPE [key=value ...] [--resume] [--dry-run]."""

import sys

from medssl.cli import script

if __name__ == "__main__":
    sys.exit(script("pretrain"))

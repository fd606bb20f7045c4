"""Fine-tune on labelled cases and judge the result: python ssl_finetune.py RECIPE [key=value ...] [--resume] [--dry-run]."""

import sys

from medssl.cli import script

if __name__ == "__main__":
    sys.exit(script("finetune"))

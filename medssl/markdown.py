"""Tables in Markdown whose source lines up, so that they read well in a terminal too."""

from collections.abc import Sequence


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> str:
    """Write a table, each column padded to one width: the first `words` columns stand left, numbers right."""
    lines = [list(header), *map(list, rows)]
    # at least two, as the rule of a column of numbers is a dash and a colon
    widths = [max(2, *(len(line[column]) for line in lines)) for column in range(len(header))]
    pads = [str.ljust if column < words else str.rjust for column in range(len(header))]
    rule = ["-" * (width - 1) + ("-" if column < words else ":") for column, width in enumerate(widths)]
    body = [[pad(cell, width) for pad, cell, width in zip(pads, line, widths, strict=True)] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [body[0], rule, *body[1:]])

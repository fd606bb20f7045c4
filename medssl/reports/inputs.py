"""What a report says of a run's images: that they were cut to an object, and which modalities some of them lack."""

from medssl.runs import Run


def region_sentence(run: Run) -> str:
    """Say that images were cut to the objects of masks, after a space; nothing where they were whole."""
    margin = run.config.get("roi")
    if margin is None:
        return ""
    return f" Every image was cut to the object of its mask, with a margin of {margin:g} of the object's longest side."


def input_limits(run: Run) -> list[str]:
    """Say what the scores ask of a new case, and which channels were 0 because nobody has them."""
    parts = (run.summary.get("lacking") or {}).items()
    lacking = [
        f"{count} of {total} cases of {part} lack {name}, which is 0 there."
        for part, names in parts
        for name, (count, total) in names.items()
    ]
    if run.config.get("roi") is None:
        return lacking
    return ["Judged on regions cut around the mask: a new case needs one too. The scores do not cover finding it.", *lacking]

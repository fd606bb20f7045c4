"""Where the kills of a run fall: moments drawn for steps of their own, in the order of the steps.

Steps rise from kill to kill, so that each one is still to come for a run that goes on from its newest checkpoint.
"""

import random
from collections.abc import Sequence

from moments import Kill

from medssl.config import Shared

CHECKPOINT = ("checkpoint: half", "checkpoint: unsynced", "checkpoint: previous unmoved", "checkpoint: between the renames",
              "checkpoint: moved")  # fmt: skip
VALIDATION = ("validation: forward", "validation: half a line", "validation: half of progress.png", "checkpoint: best unmoved")
STEP = ("step: waiting for data", "step: reading a crop", "step: forward", "step: backward", "step: optimiser done",
        "step: half a line")  # fmt: skip
START = ("start: importing", "start: packing", "start: config.json unmoved")
END = ("end: encoder unsynced", "end: summary unmoved", "end: half of report.html")
DEEPEST = 12  # parts of a network and nodes of its graph, of which even the smallest here has more


def schedule(settings: Shared, seed: int, validation: int = 3, others: int = 9, ends: Sequence[str] = END) -> list[Kill]:
    """Kills at the start, in 5 checkpoints, in validations, in other moments of steps, while a run is taken up, at the end."""
    dice = random.Random(seed)
    free = set(range(1, settings.steps))

    def drawn(moments: Sequence[str], count: int, every: int = 1) -> list[Kill]:
        steps = dice.sample(sorted(step for step in free if step % every == 0), count)
        free.difference_update(steps)
        return [Kill(moments[k % len(moments)], step, nth(moments[k % len(moments)])) for k, step in enumerate(steps)]

    def nth(moment: str) -> int:
        return dice.randint(1, DEEPEST) if moment.endswith(("forward", "backward")) else 1

    first = settings.validate_every  # whose figures are the best so far
    free.discard(first)
    kills = [Kill("checkpoint: half of the best", first), *drawn(CHECKPOINT, 5, settings.checkpoint_every)]
    kills += drawn(VALIDATION[:3], validation, settings.validate_every)
    kills += drawn(dice.sample(STEP, len(STEP)), others)
    spared = next(kill for kill in kills if kill.moment == "step: optimiser done")
    kills[kills.index(spared)] = spared._replace(alone=True)  # as the system does it when memory ends
    kills.sort(key=lambda kill: kill.step)
    kills.insert(dice.randint(2, len(kills)), Kill("start: metrics cut"))
    return [*map(Kill, START), *kills, *map(Kill, ends)]

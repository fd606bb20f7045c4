"""How the learning rate and the momentum go over the steps, one table each; what they do is in `medssl.schedules`."""

from typing import Annotated, Literal

from pydantic import Field

from medssl.config.tables import Table

Momenta = Annotated[list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=3, max_length=3)]
OPPOSED = "momentum, or Adam's first beta, at the start, at the highest rate and at the end"


class Constant(Table):
    """The rate stays at lr after the warm-up."""

    name: Literal["constant"] = "constant"


class Cosine(Table):
    """The rate falls as half a cosine to 0 after the warm-up."""

    name: Literal["cosine"] = "cosine"


class OneCycle(Table):
    """The rate rises to lr and falls again, both as half a cosine, the momentum against it."""

    name: Literal["one_cycle"] = "one_cycle"
    pct_start: float = Field(0.25, gt=0, lt=1, description="share of the steps in which the rate rises")
    div: float = Field(25.0, ge=1, description="lr over the first rate")
    div_final: float = Field(1e5, ge=1, description="lr over the last rate")
    momentum: Momenta = Field([0.95, 0.85, 0.95], description=OPPOSED)


class FineTune(Table):
    """fastai's `fine_tune`: one cycle for the head alone in freeze_steps, then one at lr / 2 with lower rates further down."""

    name: Literal["fine_tune"] = "fine_tune"
    momentum: Momenta = Field([0.95, 0.85, 0.95], description=OPPOSED)


ScheduleSettings = Constant | Cosine | OneCycle | FineTune

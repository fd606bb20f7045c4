"""How intensities become 0..1, one table each."""

from typing import Literal, Self

from pydantic import Field, model_validator

from medssl.config.tables import Percentage, Table


class Limits(Table):
    """Two ends that become 0 and 1."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        low, high = getattr(self, "low", 0.0), getattr(self, "high", 1.0)
        if low >= high:
            raise ValueError(f"low: found {low}, expected less than high {high}")
        return self


class Window(Limits):
    """Intensities low..high become 0..1, the same for every image; CT in Hounsfield units."""

    name: Literal["window"]
    low: float = Field(description="intensity that becomes 0")
    high: float = Field(description="intensity that becomes 1")


class Percentiles(Limits):
    """Two percentiles of each volume become 0 and 1; MR, whose intensities have no unit."""

    name: Literal["percentile"]
    low: Percentage = Field(0.5, description="percentile that becomes 0, a multiple of 0.5")
    high: Percentage = Field(99.5, description="percentile that becomes 1, a multiple of 0.5")

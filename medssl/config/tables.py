"""A table of settings, and the types that several tables share."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer

Sizes = Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=2, max_length=3)]
Box = Annotated[list[Annotated[int, Field(ge=1)]] | Annotated[int, Field(ge=1)], Field()]
Share = Annotated[float, Field(ge=0, le=1)]
Percentage = Annotated[float, Field(ge=0, le=100)]
Span = Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)]  # from, to


def not_all(value: Any) -> Any:
    """Refuse 1.0, which reads as a share and would count one case."""
    if isinstance(value, float) and value == 1:
        raise ValueError("found 1.0, expected 1 for one case, a share below 1, or null for all")
    return value


def whole_or_share(value: float) -> float:
    """A share below 1, or a count as a whole number."""
    if value >= 1 and value != int(value):
        raise ValueError(f"found {value}, expected a whole number, or a share below 1")
    return int(value) if value >= 1 else value


Amount = Annotated[
    float,
    Field(gt=0),
    BeforeValidator(not_all),
    AfterValidator(whole_or_share),
    PlainSerializer(lambda value: value),
]


class Table(BaseModel):
    """A group of settings; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


def named(value: Any) -> Any:
    """Read a bare name as a table that has nothing but its name."""
    return {"name": value} if isinstance(value, str) else value


def flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested settings: {"method": {"temperature": 1}} -> {"method.temperature": 1}."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        inner = isinstance(value, dict) and value
        found |= flat(value, f"{prefix}{key}.") if inner else {f"{prefix}{key}": value}
    return found

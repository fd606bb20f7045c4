"""The settings as `--help` lists them: a line each, under a table's setting those of its kinds."""

from collections.abc import Iterator
from typing import Any, get_args

from medssl.config.tables import Table


def listed(table: type[Table], indent: str = "  ") -> Iterator[str]:
    """Every setting of a table with its default and description, those of tables inside it below them."""
    yield from lines(table, list(table.model_fields), indent)


def lines(table: type[Table], names: list[str], indent: str) -> Iterator[str]:
    """Some settings of a table."""
    for name in names:
        setting = table.model_fields[name]
        default = "" if setting.is_required() else f" [{getattr(setting.default, 'name', setting.default)}]"
        yield f"{indent}{name}{default if len(default) < 40 else ''}: {setting.description or ''}"
        for inner, (kinds, own) in families(setting.annotation).items():
            yield f"{indent}  {f'{name}=' if kinds else ''}{', '.join(kinds) or f'{name}.'}"
            yield from lines(inner, own, f"{indent}    ")


def families(annotation: Any) -> dict[type[Table], tuple[list[str], list[str]]]:
    """The tables that a setting may be: those with settings of their own, each with the kinds that have them and which.

    What several kinds inherit stands once, by the table that they have it from.
    """
    found = dict[type[Table], tuple[list[str], list[str]]]()
    for kind in tables_in(annotation):
        name = kind.model_fields.get("name")
        for above in (one for one in kind.__mro__ if issubclass(one, Table)):
            own = [key for key in above.model_fields if key in above.__annotations__ and key != "name"]
            if own:
                found.setdefault(above, ([], own))[0].extend(get_args(name.annotation) if name else ())
    return found


def tables_in(annotation: Any) -> Iterator[type[Table]]:
    """The tables in a type and in the types that it is made of."""
    if isinstance(annotation, type) and issubclass(annotation, Table):
        yield annotation
    for part in get_args(annotation):
        yield from tables_in(part)

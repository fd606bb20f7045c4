"""Which ids mean one patient: `P01`, `p01`, `P01_day2` and `P01-ses-02` do, `case_001` and `case_002` do not.

Ids are compared without case and after visit-like endings are taken off: a separator and then a day, visit, session
or scan with its number, a side, a plane, a sequence, before or after a treatment, a date, or a copy's `(2)`. What is left
must hold a digit unless the ending is a whole word as `_left`, `_baseline`, `_t1w`: `mri_scan_1` and `mri_scan_2` stay two.
Besides, an id with a digit and the same id with a separator and up to three more characters are one: `P01`, `P01-b`.
A number alone is no visit: `sub-01` and `sub-02` are two, and so are `A-1-1` and `A-1-2` unless `A-1` is there too.
"""

import re
import unicodedata
from collections.abc import Iterable

_NUMBERED = "day|visit|session|ses|scan|run|timepoint|time|tp|week|wk|month|mo|year|yr|followup|follow-up|fu|[dvmwyt]"
_WORDS = "pre|post|pre-?op|post-?op|baseline|before|after|followup|follow-up|left|right|t1w|t1ce|t1gd|t2w|flair"
_MARKS = "bl|fu|l|r|lh|rh|copy|t1c|t2f|pd|dwi|adc|ax|axial|cor|coronal|sag|sagittal"
_AFTER = r"\d{1,4}(?:days?|weeks?|wk|months?|mo|years?|yr)"
_MONTH = r"-?(?:0\d|1[0-2])-?"
_DATE = rf"(?:19|20)\d\d{_MONTH}[0-3]\d|[0-3]\d{_MONTH}(?:19|20)\d\d"
_SEPARATED = r"^(.*[^\W_]){}[\s_.-]+(?:{})$"
_WORD = re.compile(_SEPARATED.format("", _WORDS))
_VISIT = re.compile(_SEPARATED.format("", rf"(?:{_NUMBERED})[\s_.-]?\d{{1,4}}|{_AFTER}|{_MARKS}|{_DATE}"))
_COPY = re.compile(r"^(.*\d.*?)\s*\(\d{1,3}\)$")
_LONGER = re.compile(r"^(.*\d.*?)[\s_-]+[a-z0-9]{1,3}$")


def group_patients(names: Iterable[str]) -> dict[str, str]:
    """For each name the one that stands for its patient: two names of one patient have the same."""
    keys = {name: _without_visit(_folded(name)) for name in names}
    known = set(keys.values())
    return {name: _shortest(key, known) for name, key in keys.items()}


def _folded(name: str) -> str:
    # two ways of writing an accent are one as well
    return unicodedata.normalize("NFKC", name).casefold().strip()


def _without_visit(name: str) -> str:
    while True:
        visit = _VISIT.match(name) or _COPY.match(name)
        if visit and not re.search(r"\d", visit[1]):
            visit = None
        ending = visit or _WORD.match(name)
        if ending is None:
            return name
        name = ending[1]


def _shortest(key: str, known: set[str]) -> str:
    while (longer := _LONGER.match(key)) and longer[1] in known:
        key = longer[1]
    return key

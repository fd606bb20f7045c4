"""Where the encoders of arms come from: method, data, number of cases and cost, over the whole chain of pre-trainings."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medssl.comparison.arms import Arm
from medssl.comparison.planned import Study
from medssl.runs import Run, is_run, read_run
from medssl.splits import Case, people_of, stem, who

AMOUNTS = ("unlabelled", "cases", "n_cases")  # axes that say how many unlabelled cases were used
DATA = ("data", "pretraining_data", "split")  # axes that say which


@dataclass(frozen=True)
class Origin:
    """The pre-training of an arm; seconds and samples (crops) are of the whole chain, `cases` of its last run."""

    method: str
    data: str
    cases: int | None
    seconds: float
    samples: int
    folders: list[str]
    chain: list[Run]

    def as_dict(self) -> dict[str, Any]:
        """Give what summary.json holds."""
        return {name: value for name, value in asdict(self).items() if name != "chain"}


def origins_of(arms: Sequence[Arm], pretraining: Sequence[Run], study: Study | None) -> dict[str, Origin]:
    """Give the origin of each pre-trained arm, by its title, whose pre-training is among the runs or where it was."""
    known = {run.folder.resolve(): run for run in pretraining}
    found = {}
    for arm in (arm for arm in arms if arm.pretrained):
        chain = chain_of(arm.runs[0], known)
        if chain:
            found[arm.title] = _origin(chain, study)
    return found


def chain_of(run: Run, known: Mapping[Path, Run]) -> list[Run]:
    """Give the pre-trainings that a run's encoder went through, oldest first; those that can't be found are not in it."""
    chain: list[Run] = []
    while run.pretrained:
        before = _encoder_run(run, known)
        if before is None or before in chain:
            break
        chain.insert(0, before)
        run = before
    return chain


def samples_of(run: Run) -> int:
    """How many crops a run was trained on, counting repetitions."""
    return int(run.summary.get("steps") or 0) * int(run.config.get("batch_size") or 0)


def leaks(arms: Sequence[Arm], origins: Mapping[str, Origin]) -> list[str]:
    """Say which arms were judged on patients that their pre-training saw, as the run folders' own splits tell.

    Patients are compared where both runs read the same folder of data: elsewhere equal names mean nothing. A fine-tuning
    itself compares the content of images, and warns in its summary.
    """
    notes = []
    for arm in arms:
        seen = {patient for run in getattr(origins.get(arm.title), "chain", []) for patient in seen_patients(arm.runs[0], run)}
        if seen:
            some = ", ".join(sorted(seen)[:3]) + (", ..." if len(seen) > 3 else "")
            notes.append(f"{arm.title}: {len(seen)} of {len(arm.tested)} test patients were seen in pre-training ({some})")
    return notes


def seen_patients(run: Run, before: Run) -> set[str]:
    """Test patients of a run whose images, or other images of theirs, an earlier run was pre-trained on."""
    if _root(run) != _root(before):
        return set()
    learned, judged = _cases(before, "pretraining"), _cases(run, str(run.summary.get("part", "test")))
    grouped_by = "image" if "images" in (run.units, before.units) else "patient"
    people = people_of(grouped_by, [*learned, *judged])
    patients, images = {people[who(case)] for case in learned}, {path for case in learned for path in case.image}
    return {case.patient for case in judged if people[who(case)] in patients or images.intersection(case.image)}


def _origin(chain: Sequence[Run], study: Study | None) -> Origin:
    planned = [study.planned(run) if study else [] for run in chain]
    axes = [entries[0].axes if entries else {} for entries in planned]
    data = [_data_of(run, of_run) for run, of_run in zip(chain, axes, strict=True)]
    last = chain[-1]
    cases = next((axes[-1][name] for name in AMOUNTS if name in axes[-1]), last.summary.get("n_cases"))
    return Origin(
        method=_method_of(last),
        data=", then ".join(data),
        cases=cases if isinstance(cases, int) else last.summary.get("n_cases"),
        seconds=sum(float(run.summary.get("seconds") or 0.0) for run in chain),
        samples=sum(map(samples_of, chain)),
        folders=[str(run.folder) for run in chain],
        chain=list(chain),
    )


def _encoder_run(run: Run, known: Mapping[Path, Run]) -> Run | None:
    """The run that an encoder comes from: where its path says, or in a study that was moved since, by its last folders."""
    path = Path(str(run.summary.get("encoder", run.config.get("encoder"))))
    folder = path.parent if path.suffix == ".safetensors" else path
    if folder.resolve() in known:
        return known[folder.resolve()]
    if is_run(folder):
        return read_run(folder)
    moved = [other for place, other in known.items() if folder.parts[-2:] == place.parts[-2:]]
    return moved[0] if len(moved) == 1 else None


def _method_of(run: Run) -> str:
    method = run.summary.get("method") or run.config.get("method") or "pre-training"
    return str(method.get("name", "pre-training") if isinstance(method, dict) else method)


def _data_of(run: Run, axes: Mapping[str, Any]) -> str:
    named = next((axes[name] for name in DATA if isinstance(axes.get(name), str)), None)
    return Path(str(named or run.config.get("split") or run.split.get("name") or "data")).stem


def _root(run: Run) -> Path:
    """The folder that a run's paths start from, as `read_split` has it."""
    root = run.config.get("data_root")
    return (Path(str(run.config.get("split") or "")).parent if root is None else Path(root)).resolve()


def _cases(run: Run, part: str) -> list[Case]:
    """The cases of a part, known by what they are known by in `read_split`."""
    found = []
    for entry in run.split.get(part) or []:
        case = {"image": entry} if isinstance(entry, str) else entry
        image = case.get("image")
        files = tuple(Path(path) for path in (image if isinstance(image, list) else [image]) if path)
        id = str(case.get("id", stem(files[0]) if files else ""))
        found.append(Case(id, str(case.get("patient", id)), files))
    return found

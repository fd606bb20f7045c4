"""The split files and their makers: published ids and counts, whole patients."""

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from medssl.splits import PARTS, Split, read_split

FOLDER = Path(__file__).parents[2] / "json_splits"


def maker(name: str) -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main  # type: ignore[no-any-return]


def counts(split: Split) -> list[int]:
    return [len(split.part(part)) for part in PARTS]


def test_btcv_is_what_its_maker_writes(tmp_path: Path) -> None:
    assert maker("make_btcv")([str(tmp_path)]) == 0
    ids = {}
    for labelled in (6, 12, 24):
        name = f"btcv_{labelled}.json"
        assert (tmp_path / name).read_text() == (FOLDER / name).read_text()
        split = read_split(FOLDER / name)
        assert counts(split) == [0, labelled, 6, 0]
        assert [case.id for case in split.part("validation")] == [f"{n:04d}" for n in range(35, 41)]
        assert (len(split.labels), split.labels[6], split.labels[13]) == (14, "liver", "lad")
        ids[labelled] = [case.id for case in split.part("training")]
    assert ids[6] == ids[12][:6]
    assert ids[12] == ids[24][:12]
    assert ids[12][9:] == ["0010", "0021", "0022"]
    assert ids[24][-1] == "0034"


@pytest.mark.parametrize("seed", [0, 1])
def test_tcia_covid19_divides_600_to_171_by_patient(tmp_path: Path, seed: int) -> None:
    images = tmp_path / "images"
    images.mkdir()
    draw = random.Random(seed)
    names = [f"volume-covid19-A-{p:04d}" for p in range(600)]
    names += [f"{name}_day{day:03d}" for name in draw.sample(names, 100) for day in draw.sample(range(60), 5)]
    for name in names[:771]:
        (images / f"{name}.nii.gz").touch()
    (images / "volume-covid19-A-0001.json").touch()
    main = maker("make_tcia_covid19")
    assert main([str(images), str(tmp_path / "split.json"), "--seed", str(seed)]) == 0
    split = read_split(tmp_path / "split.json", images)
    assert counts(split) == [600, 0, 171, 0]
    assert any(case.patient == "A-0007" for part in PARTS for case in split.part(part))
    assert main([str(tmp_path / "nowhere"), str(tmp_path / "none.json")]) == 2
    assert not (tmp_path / "none.json").exists()


@pytest.mark.parametrize("folders", [("imagesTr", "labelsTr"), ("images", "labels")])
def test_hippocampus_is_divided_by_subject(tmp_path: Path, folders: tuple[str, str]) -> None:
    numbers = [2 * k + side for k in range(170) for side in ((1, 2) if k < 90 else (1,))]
    for folder in folders:
        (tmp_path / folder).mkdir()
        for number in numbers:
            (tmp_path / folder / f"hippocampus_{number:03d}.nii.gz").touch()
            (tmp_path / folder / f"._hippocampus_{number:03d}.nii.gz").touch()  # as the published archive has
    main = maker("make_hippocampus")
    assert main([str(tmp_path), str(tmp_path / "split.json")]) == 0
    split = read_split(tmp_path / "split.json")
    assert counts(split) == [200, 200, 20, 40]
    assert len({case.patient for part in PARTS for case in split.part(part)}) == 170
    assert [case.id for case in split.part("pretraining")] == [case.id for case in split.part("training")]
    by_id = {case.id: case.patient for part in PARTS for case in split.part(part)}
    assert by_id["hippocampus_003"] == by_id["hippocampus_004"] == "2"
    (tmp_path / folders[1] / "hippocampus_004.nii.gz").unlink()
    assert main([str(tmp_path), str(tmp_path / "none.json")]) == 2

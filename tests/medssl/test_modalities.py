"""Missing modalities: a channel that is null in the split is 0 in all that a network sees, and changes nothing else."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from torch import Tensor

from medssl.check import check_split
from medssl.cli import main
from medssl.config import Finetune, Pretrain
from medssl.data import load_data
from medssl.finetune import finetune
from medssl.loaders import Crops, whole_images
from medssl.pretrain import pretrain
from medssl.problems import InputError
from medssl.runs import read_run
from medssl.splits import Split, read_split

CHANNELS = ("FLAIR", "T1c", "T2")
PARTS = ["training", "validation", "test"]


def make_split(folder: Path, lacking: dict[int, tuple[int, ...]], name: str = "split") -> Path:
    """Write twelve cases of three modalities (once) and a split in which some cases lack some."""
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    entries = []
    for k in range(12):
        paths: list[str | None] = []
        for c in range(3):
            path = folder / f"{k}_{CHANNELS[c]}.nii.gz"
            if not path.exists():
                voxels = np.pad(random.normal(100 + 80 * c, 20, (16, 18, 14)), 2).astype(np.int16)  # a dark border
                nibabel.save(nibabel.Nifti1Image(voxels, np.diag([-1, 1, 1.5, 1])), path)
            paths.append(None if c in lacking.get(k, ()) else path.name)
        entries.append({"id": f"c{k}", "image": paths, "label": k % 2})
    parts = {"training": entries[:6], "validation": entries[6:9], "test": entries[9:]}
    bare = [{key: entry[key] for key in ("id", "image")} for entry in entries[:6]]
    about = {"task": "classification", "labels": {"0": "a", "1": "b"}, "modality": dict(enumerate(CHANNELS))}
    (folder / f"{name}.json").write_text(json.dumps(about | {"name": "modalities", "pretraining": bare} | parts))
    return folder / f"{name}.json"


@pytest.fixture
def settings(finetuning: Callable[..., Finetune], tmp_path: Path) -> Callable[..., Finetune]:
    """Make settings of a small classification, with changes."""

    def make(split: Path, **changes: Any) -> Finetune:
        base = {"split": split, "store": tmp_path / "store", "crop_size": [16, 16, 16], "steps": 2, "validate_every": 2}
        network = {"name": "vit_tiny", "patch_size": [8, 8, 8], "hidden_size": 12, "mlp_size": 24, "layers": 2}
        return finetuning(**base | {"network": network} | changes)

    return make


@pytest.mark.parametrize("intensity", ["percentile", {"name": "window", "low": -57.0, "high": 164.0}])
def test_a_missing_channel_is_zero_and_the_others_are_what_they_were(
    intensity: Any, settings: Callable[..., Finetune], tmp_path: Path
) -> None:
    """Also resampled, cropped to the foreground, and with a window in which 0 is grey."""
    few, all_there = make_split(tmp_path / "d", {0: (1,), 9: (0, 2), 10: (2,)}), make_split(tmp_path / "d", {}, "whole")
    words: dict[str, Any] = {"intensity": intensity, "spacing": [1.2, 1.2, 1.2], "foreground_above": 30.0}

    def images(path: Path) -> tuple[Split, dict[str, Tensor], list[Tensor]]:
        made = settings(path, **words)
        split, store = load_data(made, PARTS, labels=True)
        cases = [case for part in PARTS for case in split.part(part)]
        crops = Crops(store, split.part("training"), made.model_copy(update={"foreground_share": 0.0}))
        return split, {i.case: i.image for i in whole_images(store, cases, made)}, [crops[k]["image"] for k in range(6)]

    split, found, crops = images(few)
    _, expected, _ = images(all_there)
    for case in [case for part in PARTS for case in split.part(part)]:
        for channel in range(3):
            image = found[case.id][channel]
            if channel in case.missing:
                assert not image.any()
            elif found[case.id].shape == expected[case.id].shape:
                assert image.equal(expected[case.id][channel])
                assert image.any()
    assert sum(found[name].shape == expected[name].shape for name in ("c0", "c9", "c10")) == 3
    assert sum(not crop[1].any() for crop in crops) == 1


def test_a_channel_that_comes_or_goes_prepares_the_case_again(settings: Callable[..., Finetune], tmp_path: Path) -> None:
    """The files can be the same ones when they change places."""
    entries = []
    for missing in ((0,), (1,)):
        path = make_split(tmp_path / "d", {})
        content = json.loads(path.read_text())
        for part in ("pretraining", "training"):
            content[part][0]["image"] = [
                None if c in missing else "0_FLAIR.nii.gz" if c < 2 else "0_T2.nii.gz" for c in range(3)
            ]
        path.write_text(json.dumps(content))
        _, store = load_data(settings(path), PARTS, labels=True)
        entry = store.entries["c0"]
        assert not store.array(entry.image)[missing[0]].any()
        assert store.array(entry.image)[1 - missing[0]].any()
        entries.append(entry)
    assert [entry.missing for entry in entries] == [(0,), (1,)]
    assert entries[0].content == entries[1].content  # by the images that are there


def test_checks_count_channels_and_take_no_missing_one_for_a_constant(tmp_path: Path) -> None:
    path = make_split(tmp_path / "d", {0: (1,), 9: (0, 2)})
    split = read_split(path)
    assert (split.part("test")[0].missing, len(split.part("test")[0].image)) == ((0, 2), 1)
    assert check_split(split, deep=True) == []
    content = json.loads(path.read_text())
    content["test"][0]["image"] = [None, None, None]
    content["test"][1]["image"] = [None, "10_T1c.nii.gz"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_split(path)
    expected = f"{path}: test[0].image: found null for every channel, expected a path for at least one"
    assert [str(problem) for problem in caught.value.problems] == [expected]
    content["test"][0]["image"] = [None, None, "9_T2.nii.gz"]
    path.write_text(json.dumps(content))
    (problem,) = check_split(read_split(path), deep=True)
    assert (problem.found, problem.expected) == ("2", "3, as many as modality names")


def test_both_scripts_train_and_say_what_is_missing(
    settings: Callable[..., Finetune], pretraining: Callable[..., Pretrain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medssl.pretrain.write_report", lambda folder: folder)
    split = make_split(tmp_path / "d", {0: (1,), 3: (1, 2), 9: (0, 2)})
    words = settings(split).model_dump(include={"split", "store", "crop_size", "network"})
    first = pretraining(**words, method="simclr", steps=1, validate_every=1)
    pretrain(first)
    assert "2 of 6 cases of pretraining lack T1c" in (first.out / "log.txt").read_text()
    second = settings(split, encoder=str(first.out), augment={"channel_dropout": 0.3, "shift_prob": 1.0})
    finetune(second)
    log = (second.out / "log.txt").read_text()
    for line in ("2 of 6 cases of training lack T1c", "1 of 6 cases of training lack T2", "1 of 3 cases of test lack FLAIR"):
        assert line in log, line
    assert read_run(second.out).summary["lacking"]["training"] == {"T1c": [2, 6], "T2": [1, 6]}
    assert "1 of 3 cases of test lack FLAIR, which is 0 there." in (second.out / "report.html").read_text()


def test_slices_of_a_case_lack_what_it_lacks(tmp_path: Path) -> None:
    path = make_split(tmp_path / "d", {0: (1,), 1: (0, 2)})
    content = json.loads(path.read_text())
    path.write_text(json.dumps({key: content[key] for key in ("name", "modality", "pretraining")}))
    assert main(["slices", str(path), str(tmp_path / "cut"), "--every", "4"]) == 0
    cut = read_split(tmp_path / "cut" / "split.json")
    by_case = {case.id.split("_")[0]: case for case in cut.part("pretraining")}
    assert [by_case[name].missing for name in ("c0", "c1", "c2")] == [(1,), (0, 2), ()]
    assert [image.name[-10:] for image in by_case["c0"].image] == ["_c0.nii.gz", "_c2.nii.gz"]
    assert check_split(cut, deep=True) == []


def test_a_table_with_empty_cells_and_a_template_make_such_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_split(tmp_path / "d", {}).parent
    (folder / "5_T2.nii.gz").unlink()
    (folder / "0_FLAIR.nii.gz").unlink()
    paths = [[f"{k}_{channel}.nii.gz" for channel in CHANNELS] for k in range(12)]
    rows = [[*(path if (folder / path).exists() else "" for path in paths[k]), "ab"[k % 2], f"p{k}"] for k in range(12)]
    (folder / "t.csv").write_text("\n".join([",".join([*CHANNELS, "dx", "who"]), *map(",".join, rows)]))
    columns = ["image=FLAIR,T1c,T2", "label=dx", "patient=who"]
    command = ["split", str(folder), str(folder / "table.json"), "--table", str(folder / "t.csv"), "--columns", *columns]
    assert main([*command, "--modality", *CHANNELS]) == 0
    cases = {case.patient: case for part in PARTS for case in read_split(folder / "table.json").part(part)}
    assert (cases["p5"].missing, cases["p0"].missing, cases["p1"].missing) == ((2,), (0,), ())
    assert [path.name for path in cases["p0"].image] == ["0_T1c.nii.gz", "0_T2.nii.gz"]
    assert check_split(read_split(folder / "table.json"), deep=True) == []
    images = [word for channel in CHANNELS for word in ("--image", "{patient}_" + channel + ".nii.gz")]
    capsys.readouterr()
    assert main(["split", str(folder), str(folder / "left.json"), *images, "--by-image"]) == 0
    assert "left out, --keep-incomplete keeps them, cases without every channel: 2 (0_T1c.nii.gz," in capsys.readouterr().out
    assert main(["split", str(folder), str(folder / "kept.json"), *images, "--keep-incomplete"]) == 0
    kept = {case.patient: case for part in ("pretraining", *PARTS) for case in read_split(folder / "kept.json").part(part)}
    assert (len(kept), kept["5"].missing, kept["0"].missing) == (12, (2,), (0,))
    empty = [",".join([*CHANNELS, "dx", "who"]), ",n/a,,a,p0", "1_FLAIR.nii.gz,,,b,p1"]
    (folder / "t.csv").write_text("\n".join(empty))
    assert main([*command, "--overwrite"]) == 2
    assert "line 2, FLAIR: found no image of any channel, expected at least one" in capsys.readouterr().err

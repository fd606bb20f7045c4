"""Images cut to the object of a mask: stores of their own, cut or whole but never mixed, and said wherever it counts."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import made_files
import numpy as np
import PIL.Image
import pytest
from phantoms import make_marked

from medssl import pack
from medssl.check import check_split
from medssl.config import Finetune, Pretrain
from medssl.data import load_data
from medssl.finetune import finetune, parts_of
from medssl.plan import build_encoder, differences, plan_of
from medssl.preparation import prepare_case
from medssl.pretrain import warnings_of
from medssl.problems import InputError
from medssl.runs import read_run
from medssl.splits import read_split
from medssl.store import Geometry
from networks.transfer import write_weights
from transforms.region import region_box

RESNET = {"name": "resnet18", "width": 8, "stem_stride": 1, "stem_pool": False}
TINY = {"name": "vit_tiny", "patch_size": [8, 8], "hidden_size": 12, "mlp_size": 24, "layers": 2}
PARTS = ["training", "validation", "test"]


@pytest.fixture
def marked(tmp_path: Path) -> Path:
    """The split of 24 images with masks."""
    return make_marked(tmp_path / "marked", cases=24)


@pytest.fixture
def classifying(tmp_path: Path) -> Callable[..., Finetune]:
    """Make settings of a small classification with images cut to their objects, with changes."""

    def make(split: Path, **changes: Any) -> Finetune:
        base: dict[str, Any] = {
            "split": split, "out": tmp_path / "run", "store": tmp_path / "store", "crop_size": [32, 32], "fit": [32, 32],
            "roi": 0.2, "intensity": "percentile", "network": TINY, "steps": 2, "batch_size": 4, "validate_every": 2,
            "workers": 0, "lr": 2e-3, "threads": 1, "device": "cpu",
        }  # fmt: skip
        return Finetune.model_validate(base | changes)

    return make


def pixels(path: Path) -> np.ndarray:
    return np.asarray(PIL.Image.open(path))


def test_the_store_holds_the_boxes_around_the_objects(marked: Path, classifying: Callable[..., Finetune]) -> None:
    settings = classifying(marked, fit=None, pad=True)
    split, store = load_data(settings, PARTS, labels=True)
    _, whole = load_data(classifying(marked, fit=None, pad=True, roi=None), PARTS, labels=True)
    assert len({Path(one.shards[0].path).name for one in (store, whole)}) == 2
    for case in split.part("test"):
        assert case.mask is not None
        (top, left), (bottom, right) = region_box(pixels(case.mask), 0.2)
        image, entry = pixels(case.image[0]), store.entries[case.id]
        assert (bottom - top, right - left) == (17, 17)  # 12 * 1.4, rounded up
        assert np.array_equal(store.array(entry.image)[0], image[top:bottom, left:right])
        assert np.array_equal(whole.array(whole.entries[case.id].image)[0], image)
        assert entry.content == whole.entries[case.id].content  # a leak is seen under any cut
    _, fitted = load_data(classifying(marked), PARTS, labels=True)
    assert {entry.shape for entry in fitted.entries.values()} == {(32, 32)}
    assert Geometry(2).key == "de33400f5887"  # what is packed stays while VERSION does, whatever is added for others


def packed_again(settings: Finetune, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The cases that loading packs."""
    fresh: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            pack, "prepare_case", lambda split, case, *rest: fresh.append(case.id) or prepare_case(split, case, *rest)
        )
        load_data(settings, PARTS, labels=True)
    return fresh


def test_a_changed_mask_prepares_its_case_again_only_where_images_are_cut(
    marked: Path, classifying: Callable[..., Finetune], monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, whole = classifying(marked), classifying(marked, roi=None)
    assert len(packed_again(cut, monkeypatch)) == len(packed_again(whole, monkeypatch)) == 24
    assert packed_again(cut, monkeypatch) == packed_again(whole, monkeypatch) == []
    PIL.Image.fromarray(np.rot90(pixels(marked.parent / "masks/003.png"))).save(marked.parent / "masks/003.png")
    assert packed_again(whole, monkeypatch) == []
    assert packed_again(cut, monkeypatch) == ["m003"]


def test_a_mat_file_is_image_class_and_mask(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    mask = np.zeros((30, 40), np.uint8)
    mask[5:9, 20:30] = 1
    for k in range(3):
        made_files.mat(
            tmp_path / f"{k}.mat", random.integers(0, 900, (30, 40)).astype(np.int16), mask * (k < 2), f"P{k}", k + 1
        )
    entries = [{"image": f"{k}.mat", "label": k, "mask": f"{k}.mat", "patient": f"P{k}"} for k in range(3)]
    content = {"task": "classification", "labels": {"0": "a", "1": "b", "2": "c"}, "training": entries}
    (tmp_path / "split.json").write_text(json.dumps(content))
    split = read_split(tmp_path / "split.json")
    (problem,) = check_split(split, deep=True)
    assert str(problem) == f"{tmp_path / '2.mat'}: mask: found no marked voxel, expected an object to cut around"
    assert check_split(split, deep=True, masks=False) == check_split(split) == []


def without_masks(split: Path, part: str, count: int) -> None:
    content = json.loads(split.read_text())
    for case in content[part][:count]:
        del case["mask"]
    split.write_text(json.dumps(content))


def test_cut_and_whole_images_are_not_mixed(marked: Path, classifying: Callable[..., Finetune]) -> None:
    without_masks(marked, "training", 2)
    without_masks(marked, "validation", 6)
    with pytest.raises(InputError) as caught:
        finetune(classifying(marked))
    assert [str(problem).removeprefix(f"{marked}: ") for problem in caught.value.problems] == [
        "training: found 2 without a mask (m000, m001), expected a mask for every case, for roi=0.2",
        "validation: found 6 without a mask (m012, m013, m014), expected a mask for every case, for roi=0.2",
    ]
    assert not classifying(marked).out.exists()
    load_data(classifying(marked, roi=None), PARTS, labels=True)  # whole images need none


def test_what_is_cut_is_said_in_plan_summary_report_and_to_the_next_run(
    marked: Path, classifying: Callable[..., Finetune], tmp_path: Path
) -> None:
    """A pre-training on regions, and fine-tunings on regions and on whole images that start from it."""
    base = classifying(marked).model_dump(include={"split", "store", "crop_size", "fit", "roi", "intensity", "network"})
    more = {"method": "simclr", "steps": 1, "batch_size": 4, "validate_every": 1, "workers": 0, "lr": 1e-3}
    first = Pretrain.model_validate(base | more | {"out": tmp_path / "pre"})
    split, store = load_data(first, ["pretraining", "validation"], labels=False)
    assert warnings_of(first, split, store, None) == [
        "warning: masks of the pre-training cases are read: this is no label-free pre-training"
    ]
    plan = plan_of(first, split, store, step=1)
    assert plan["roi"] == 0.2
    file = tmp_path / "pre.safetensors"
    write_weights(file, build_encoder(first, 1), plan)
    same = classifying(marked, encoder=str(file), allow_seen=True)
    finetune(same)
    assert differences(same) == []
    log, page = (same.out / "log.txt").read_text(), (same.out / "report.html").read_text()
    assert "images are cut to the objects of their masks, with a margin of 0.2 of the longest side" in log
    assert "Every image was cut to the object of its mask, with a margin of 0.2" in page
    assert "Judged on regions cut around the mask: a new case needs one too." in page
    assert read_run(same.out).summary["roi"] == 0.2
    whole = classifying(marked, encoder=str(file), roi=None)
    assert differences(whole) == ["warning: roi is none here, the encoder was pre-trained with 0.2"]
    old = tmp_path / "old.safetensors"  # of a time without roi: of whole images
    write_weights(old, build_encoder(whole, 1), {"network": whole.network.model_dump()})
    told = differences(classifying(marked, encoder=str(old)))
    assert told == ["warning: roi is 0.2 here, the encoder was pre-trained with none"]
    assert differences(classifying(marked, encoder=str(old), roi=None)) == []


def test_a_segmentation_is_not_told_where_to_look(finetuning: Callable[..., Finetune], tmp_path: Path) -> None:
    settings = finetuning(roi=0.1, store=tmp_path / "store")
    with pytest.raises(InputError) as caught:
        load_data(settings, parts_of(settings), labels=True)
    expected = "settings: roi: found 0.1, expected null for segmentation, whose label would say where to look"
    assert [str(problem) for problem in caught.value.problems] == [expected]
    content = json.loads(settings.split.read_text())
    content["training"][0]["mask"] = content["training"][1]["label"]
    (tmp_path / "split.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"training\[0\].mask: found .*, expected none in segmentation"):
        read_split(tmp_path / "split.json", settings.split.parent)


@pytest.mark.slow
def test_what_only_the_mask_tells_is_learned_from_regions_alone(
    tmp_path: Path, classifying: Callable[..., Finetune], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every image has an object of both classes, and the mask says which one counts."""
    monkeypatch.setattr("medssl.finetune.write_report", lambda folder: folder)
    split = make_marked(tmp_path / "many", cases=96)
    training = {"network": RESNET, "steps": 60, "batch_size": 16, "validate_every": 20, "checkpoint": "latest"}
    found = {}
    for roi in (0.2, None):
        settings = classifying(split, **training, roi=roi, out=tmp_path / f"run-{roi}")
        finetune(settings)
        found[roi] = read_run(settings.out).summary["accuracy"]
    assert found[0.2] >= 0.9
    assert found[None] <= 0.75  # of 24 cases, by chance

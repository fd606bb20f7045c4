"""A study planned into runs, on plain data: how many, named how, waiting for what, and every mistake in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from study_phantom import BARE, CASES, SPLIT, STUDY, changed, planned

from medssl.cli import main
from medssl.config import Finetune, Pretrain
from medssl.problems import InputError
from medssl.splits import read_split
from medssl.study.checks import data_problems, missing_data, notes
from medssl.study.plan import plan
from medssl.study.schema import STUDIES, read_study, study_names
from medssl.subsets import take_labelled

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    return tmp_path


def test_every_value_with_every_other_and_one_pretraining_for_all() -> None:
    found = planned(STUDY)
    runs = list(found.runs)
    assert len(runs) == len(set(runs)) == 13
    assert runs[0] == "runs/random-labelled2-seed0"
    assert sum(name.startswith("pretrain/") for name in runs) == 1
    assert [[run.name for run in stage] for stage in found.stages()][1] == [name for name in runs if "pretrained" in name]
    run = found.runs["runs/pretrained-labelled4-seed1"]
    assert run.needs == ("pretrain/rc",)
    assert isinstance(run.settings, Finetune)
    assert (run.settings.labelled, run.settings.seed, run.settings.draw) == (4, 1, 1)
    assert (run.settings.encoder, run.settings.out, run.settings.workers) == ("out/pretrain/rc", Path("out") / run.name, 0)
    assert list(planned(STUDY).runs) == runs
    more = planned(changed(axes={"seed, draw": [0, 1, 2]}))
    assert set(runs) < set(more.runs)  # what is done stays where it is when values are added


def test_labels_nest_and_both_of_a_pair_have_the_same() -> None:
    found, split = planned(STUDY), read_split("split.json")

    def drawn(name: str) -> list[str]:
        settings = found.runs[name].settings
        assert isinstance(settings, Finetune)
        return [case.id for case in take_labelled(split, settings.labelled, settings.draw).part("training")]

    for seed in (0, 1):
        few, some, all_ = (drawn(f"runs/random-labelled{n}-seed{seed}") for n in ("2", "4", "all"))
        assert few == some[:2] == all_[:2]
        assert all_[:4] == some == drawn(f"runs/pretrained-labelled4-seed{seed}")
    assert notes(found) == []


def test_axes_of_pretrainings_are_tied_by_name_and_chains_follow() -> None:
    small = {"simclr": {"method": "simclr", "lr": 0.01}, "barlow": {"method": "barlow"}}
    found = planned(
        changed(
            pretrain={
                "rc": {"recipe": "demo_pretrain", "axes": {"method": small, "seed": [0, 1]}},
                "chain": {"like": "rc", "encoder": {"pretrain": "rc"}, "axes": {"unlabelled": [0.5, None]}},
            },
            arms={"chained": {"like": "random", "encoder": {"pretrain": "chain"}}},
        )
    )
    names = [name for name in found.runs if name.startswith("pretrain/")]
    assert len(names) == 2 * 2 + 2 * 2 * 2  # methods, seeds; and the chain in two sizes
    chain = found.runs["pretrain/chain-simclr-seed1-unlabelled0.5"]
    assert chain.needs == ("pretrain/rc-simclr-seed1",)
    assert isinstance(chain.settings, Pretrain)
    assert (chain.settings.method.name, chain.settings.lr, chain.settings.unlabelled) == ("simclr", 0.01, 0.5)
    assert len(found.of_arm("random")) == 6
    assert len(found.of_arm("pretrained")) == 6 * 2  # methods; the seed is the arm's own
    assert len(found.of_arm("chained")) == 6 * 2 * 2
    for member in found.of_arm("chained"):
        run = found.runs[member.run]
        before = found.runs[found.runs[run.needs[0]].needs[0]]
        assert run.settings.seed == before.settings.seed
        assert member.axes["method"] == before.settings.method.name  # type: ignore[attr-defined]
    assert [len(stage) for stage in found.stages()] == [4 + 6, 8 + 12, 24]


def test_any_setting_is_an_axis_and_equal_runs_are_one() -> None:
    axes = {"encoder": ["none", "w.pth", {"pretrain": "rc"}], "lr, warmup": [[0.1, 5], [0.2, 0]], "network.layers": [4, 6]}
    found = planned(
        changed(
            arms={"any": {"like": "random", "axes": {**axes, "seed": [3]}}, "twin": {"like": "random"}}, axes={"labelled": [2]}
        )
    )
    assert len(found.of_arm("any")) == 12
    assert {member.axes["encoder"] for member in found.of_arm("any")} == {"none", "w.pth", "rc"}
    settings = found.runs["runs/any-labelled2-seed3-none-lr0.2_0-layers6"].settings
    assert (settings.lr, settings.warmup, settings.network.layers) == (0.2, 0, 6)  # type: ignore[union-attr]
    assert [m.run for m in found.of_arm("twin")] == [m.run for m in found.of_arm("random")]
    assert "random and twin share runs: their settings are the same" in notes(found)


def test_words_replace_what_the_study_says() -> None:
    found = planned(STUDY, "axes.labelled=[2]", "lr=0.5", "pretrain.rc.settings.method.temperature=0.2", "axes.seed, draw=[7]")
    assert len(found.runs) == 3
    assert {run.settings.lr for run in found.runs.values()} == {0.5}
    assert found.runs["pretrain/rc"].settings.method.temperature == 0.2  # type: ignore[attr-defined]


def test_a_whole_table_takes_the_place_of_what_was_said_of_its_parts() -> None:
    whole = {"name": "vit_tiny", "patch_size": [8, 8, 8], "layers": 4, "decoder": "unetr"}
    arms = {
        "random": {"recipe": "demo_finetune", "settings": {"network.decoder": "tokens"}},
        "unetr": {"like": "random", "settings": {"network": whole, "network.layers": 6}},
        "varied": {"like": "random", "axes": {"network": [whole]}},
    }
    found = planned(changed(arms=arms, axes={"labelled": [2]}, shared={"network": whole}), "network.layers=2")
    networks = {arm: found.runs[found.of_arm(arm)[0].run].settings.network for arm in arms}
    assert {arm: (network.decoder, network.layers) for arm, network in networks.items()} == {  # type: ignore[union-attr]
        "random": ("tokens", 2), "unetr": ("unetr", 6), "varied": ("unetr", 4),
    }  # fmt: skip
    plan(*read_study("phantom", ["network.layers=2"]), Path("out"))  # whose U-Net has no such layers


def test_arms_that_differ_in_more_than_the_start_are_noted() -> None:
    pretrained = {"recipe": "demo_finetune", "settings": {"steps": 70, "warmup": 1}, "encoder": {"pretrain": "rc"}}
    found = notes(planned(changed(arms={"pretrained": pretrained}, axes={"seed, draw": [0]})))
    assert [line for line in found if "differs" in line] == [
        "pretrained against random: steps differs: 70 against 300",
        "pretrained against random: warmup differs: 1 against 20",
    ]
    assert "random: a single seed: the spread between trainings stays unknown" in found


def test_a_plan_pairs_runs_as_the_report_does() -> None:
    def told(**axes: list[Any]) -> list[str]:
        return [line for line in notes(planned(changed(arms={"pretrained": {**ARM, "axes": axes}}))) if " against " in line]

    ARM = {"recipe": "demo_finetune", "encoder": {"pretrain": "rc"}}
    said = "pretrained against random: "
    assert told() == []
    assert told(**{"network.layers": [6, 12]}) == [f"{said}network.layers differs: 6 against 12"]  # each beside those of random
    assert told(**{"seed, draw": [0]}) == [f"{said}3 runs have no partner of the same seed and draw of labels"]
    assert told(**{"seed, draw": [5]}) == [f"{said}9 runs have no partner of the same seed and draw of labels"]
    assert told(labelled=[3]) == [f"{said}no two runs with the same values of the axes of both"]
    assert told(labelled=[2]) == []
    both = changed(axes={"lr": [0.1, 0.2], "labelled": [2]}, arms={"pretrained": {**ARM, "axes": {"lr": [0.3]}}})
    assert f"{said}lr differs: 0.3 against 0.1" in notes(planned(both))  # a part of that arm
    both["arms"]["pretrained"]["axes"]["lr"] = [0.3, 0.4]
    assert f"{said}no two runs with the same values of the axes of both" in notes(planned(both))


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({"axes": {"labeled": [2]}}, ["axes.labeled: found an unknown setting, expected 'labelled'?"]),
        ({"axes": {"method": ["mae"]}}, ["axes.method: found a setting of pre-training, expected it among those of a pre-"]),
        ({"axes": {"labelled": []}}, ["axes.labelled: found no value, expected at least one"]),
        ({"axes": {"labelled": 6}}, ["axes.labelled: found 6, expected a list of values, or a table of settings by name"]),
        ({"axes": {"labelled": [6, 6]}}, ["axes.labelled: found labelled6 twice"]),
        ({"axes": {"seed": [1]}}, ["axes.seed: found another axis of seed, expected one"]),
        ({"axes": {"seed, draw": [[1, 2, 3]]}}, ["axes.seed, draw: found a list of 3, expected one value, or 2"]),
        ({"axes": {"size": {"a": {"stepz": 1}}}}, ["axes.size.stepz: found an unknown setting, expected 'steps'?"]),
        ({"axes": {"lr": [0.1, -1]}}, ["lr: found -1, expected greater than 0"]),
        ({"axes": {"out": ["a"]}}, ["axes.out: found a setting of single runs"]),
        ({"armz": {}}, ["armz: found an unknown key, expected 'arms'?"]),
        ({"arms": {"random": {"recipe": "demo_finetune", "seting": {}}}},
         ["arms.random.seting: found an unknown key, expected"]),
        ({"arms": {"random": {}}}, ["arms.random.recipe: found nothing", "arms.pretrained.recipe: found nothing"]),
        ({"arms": {"random": {"recipe": "demo_finetun"}}},
         ["arms.random.recipe: found demo_finetun, expected 'demo_finetune'?", "arms.pretrained.recipe: found"]),
        ({"arms": {"a/b": {"like": "random"}}}, ["arms.a/b: found a/b, expected a name of letters"]),
        ({"arms": {"b": {"like": "c"}}}, ["arms.b.like: found c, expected"]),
        ({"arms": {"b": {"like": "b"}}}, ["arms.b.like: found b, expected"]),
        ({"arms": {"b": {"like": "random", "encoder": {"pretrain": "rcc"}}}}, ["arms.b.encoder: found rcc, expected 'rc'?"]),
        ({"arms": {"b": {"like": "random", "encoder": 3}}}, ["arms.b.encoder: found 3, expected none, a run, a file"]),
        ({"arms": {}, "pretrain": {"x": {"like": "rc"}}}, ["pretrain.x: found no arm that starts from it"]),
        ({"pretrain": {"rc": {"recipe": "demo_pretrain", "encoder": {"pretrain": "rc"}}}}, ["rc.encoder: found a circle"]),
        ({"pretrain": {"rc": {"recipe": "demo_pretrain", "axes": {"seed": [5]}}}}, ["rc.axes: found no value for seed 0"]),
        ({"compare": [["pretrained", "randm"]]}, ["compare: found randm, expected 'random'?"]),
        ({"shared": {"lrr": 1}}, ["shared.lrr: found an unknown setting, expected 'lr'?"]),
        ({"measure": 3}, ["measure: found 3, expected"]),
    ],
)  # fmt: skip
def test_mistakes_of_a_study_are_named(changes: dict[str, Any], lines: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        planned(changed(**changes))
    found = [str(problem) for problem in caught.value.problems]
    for line in lines:
        assert sum(line in text for text in found) == 1, (line, found)
    assert len(found) == len(lines), found


@pytest.mark.parametrize(
    ("changes", "split", "line"),
    [
        ({"axes": {"labelled": [2, 7]}}, {}, "split.json: labelled: found 7, expected 1 to 6, the cases in training"),
        ({"axes": {"labelled": [3, 0.5]}}, {}, "axes.labelled: found 3 and 0.5, which take the same cases, expected amounts"),
        ({"axes": {"labelled": [2, 6, None]}}, {}, "axes.labelled: found 6 and all, which take the same cases, expected"),
        ({"arms": {"pretrained": {"like": "random", "settings": {"judge": "validation"}, "encoder": {"pretrain": "rc"}}}}, {},
         "test of random and pretrained: found c10 in one only, expected the same patients in all arms"),
        ({"arms": {"pretrained": {"like": "random", "settings": {"split": "b.json"}, "encoder": {"pretrain": "rc"}}}},
         {"test": CASES[12:19]}, "test of random and pretrained: found c19 in one only, expected the same patients in all"),
        ({"pretrain": {"rc": {"recipe": "demo_pretrain", "settings": {"split": "b.json"}}}},
         {"training": [], "pretraining": [BARE[0], CASES[12] | {"label": None}], "test": []},
         "pretraining of rc: found "),
        ({"pretrain": {"rc": {"recipe": "demo_pretrain", "settings": {"network": "vit_small"}}}}, {},
         "network: found name vit_tiny in pretrained, expected vit_small, as the pre-training rc has it"),
        ({"pretrain": {"rc": {"recipe": "demo_pretrain", "settings": {"unlabelled": 11}}}}, {},
         "unlabelled: found 11, expected at most 10, the cases in pretraining"),
        ({"measure": "dise"}, {}, "measure: found dise, expected 'dice'?"),
        ({"measure": "accuracy"}, {}, "measure: found accuracy, expected dice, for segmentation"),
        ({"measure": "hd95"}, {}, "measure: found hd95, expected dice, for segmentation"),
        ({"shared": {"split": "b.json"}}, {"test": []}, "b.json: test: found no cases, expected at least one, to judge by"),
    ],
)  # fmt: skip
def test_data_that_spoils_a_study_is_named(changes: dict[str, Any], split: dict[str, Any], line: str) -> None:
    Path("b.json").write_text(json.dumps(SPLIT | split))
    found = planned(changed(**changes))
    assert missing_data(found) == []
    problems = [str(problem) for problem in data_problems(found)]
    assert len(problems) == 1, problems
    assert line in problems[0]


def test_data_that_is_not_there_is_named() -> None:
    found = planned(changed(shared={"split": "nowhere.json"}))
    assert [str(problem) for problem in missing_data(found)] == [
        "nowhere.json: split: found no such file, expected a split: medssl split makes one"
    ]
    assert data_problems(found) == []


@pytest.mark.parametrize("name", study_names())
def test_every_study_is_sound_and_says_what_it_follows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where some of their splits are
    path, study = read_study(name)
    found = plan(path, study, Path("out"))
    assert path.parent == STUDIES
    assert all([study.about, study.follows, study.expect, study.takes, study.compare, study.measure])
    assert data_problems(found) == []
    assert len({run.settings.steps for run in found.runs.values() if run.kind == "finetune"}) == 1


def test_a_study_is_planned_and_refused_without_torch() -> None:
    Path("bad.json").write_text(json.dumps(changed(axes={"labeled": [2]})))
    script = """
import sys
from medssl.cli import main
assert main(["study", "bad.json"]) == 2
assert main(["study", "nothing"]) == 2
assert "torch" not in sys.modules and "monai" not in sys.modules
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == 2
    assert not Path("runs").exists()


def test_the_list_has_a_command_for_every_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("study.json").write_text(json.dumps(STUDY))
    assert main(["study", "study.json", "--out", "out", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# stage 1: tasks 1 to 7", "# stage 2: tasks 8 to 13"]
    assert len(lines) == 15
    assert "ssl_pretrain.py demo_pretrain split=split.json workers=0 encoder=none out=out/pretrain/rc --resume" in lines[1]
    assert main(["study", "study.json", "--out", "out", "--list", "--task", "9", "--launcher", "torchrun -n 2"]) == 0
    line = capsys.readouterr().out.splitlines()[1]
    assert line.startswith("torchrun -n 2 ")
    assert " labelled=2 seed=1 draw=1 out=out/runs/pretrained-labelled2-seed1 --resume" in line
    for words, found in (
        (["--task", "14"], "--task: task: found 14, expected 1 to 13"),
        (["--stage", "3"], "--stage: stage: found 3, expected 1 to 2"),
        (["--only", "rnd"], "--only: run: found rnd, expected"),
        (["--jobs", "0"], "--jobs: runs: found 0, expected at least 1"),
        (["--set", "lr"], "command line: lr: found no '=', expected key=value"),
    ):
        assert main(["study", "study.json", "--out", "out", "--list", *words]) == 2
        assert found in capsys.readouterr().err
    assert not Path("out").exists()

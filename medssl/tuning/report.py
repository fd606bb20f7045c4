"""report.html of a search, from its tune.json alone: the choice in words, what mattered, every trial with its run."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medssl.atomic import write_atomically
from medssl.config.tables import flat
from medssl.problems import InputError, Problem
from medssl.reports.page import Link, bars, bullets, folded, grid, page, paragraph, picture, plain, section, settings, table
from medssl.tuning.charts import best_so_far, by_setting
from medssl.tuning.folder import FILE, read_search

EDGE = 0.05  # of a range, by its logarithm where it is drawn so
FEW = 10  # finished trials below which their number is warned of


def write_search(folder: Path) -> Path:
    """Write report.html into the folder of a search; InputError where there is none, or no trial is finished."""
    content = read_search(folder)
    if not content.get("trials") or content.get("best") is None:
        raise InputError([Problem(str(folder), FILE, "no finished trial", "a search that has found something")])
    return write_atomically(folder / "report.html", page(f"Tuning of {Path(content['recipe']).stem}", body(content, folder)))


def body(content: Mapping[str, Any], folder: Path) -> list[str]:
    """The parts of the page."""
    light, dark = (best_so_far(content, dark) for dark in (False, True))
    plots = [_plot(content, name) for name in _by_importance(content)]
    matter = [(name, share, f"{share:.0%}") for name, share in content["importance"].items()]
    about = "Share of the variance between the finished trials that a setting explains, alone and with others (fANOVA)."
    return [
        paragraph(answer(content), "answer"),
        bullets(warnings(content), "warnings"),
        section("The search", picture(light, "Best value so far", _rule(content), dark=dark, wide=True)),
        section("What mattered", bars(matter, "Importance of the settings") if matter else "", paragraph(about, "quiet"))
        if matter
        else "",
        section("Value by setting", grid(plots), paragraph("The ring is the trial that was chosen.", "quiet")),
        section("Trials", trials(content)),
        section("The space", settings(content["space"])),
        section("Use it", bullets(uses(content, folder))),
        section("The recipe", folded("Settings that all trials share", settings(_shared(content)))),
    ]


def answer(content: Mapping[str, Any]) -> str:
    """What was chosen, by which figure, and what mattered, in a few sentences."""
    best, watched = content["trials"][content["best"]], content["watched"]
    chosen = ", ".join(f"{name} {plain(value)}" for name, value in best["settings"].items())
    states = [trial["state"] for trial in content["trials"]]
    said = [f"Chosen: {chosen}, with {watched} {best['value']:.4g}, trial {best['number']} of {len(states)}."]
    first = content["trials"][0]
    if len(content["own"]) == len(content["space"]) and first["state"] == "done":
        said.append(
            "That is the recipe as it was."
            if best["number"] == 0
            else f"The recipe as it was (trial 0) has {first['value']:.4g}."
        )
    if shares := content["importance"]:
        ranked = list(shares.items())
        rest = "".join(f", then {name} ({share:.0%})" for name, share in ranked[1:2])
        said.append(f"{ranked[0][0]} mattered most ({ranked[0][1]:.0%} of the variance){rest}.")
    said.append(
        "The figure is of the validation cases by which the settings were chosen, so it is optimistic."
        + (" The test part was not read." if content["script"] == "finetune" else "")
    )
    return " ".join(said)


def warnings(content: Mapping[str, Any]) -> list[str]:
    """What keeps the choice from being a good one."""
    states = [trial["state"] for trial in content["trials"]]
    found = []
    for name, value in content["trials"][content["best"]]["settings"].items():
        if side := edge(content["ranges"][name], value):
            found.append(f"The best {name}, {plain(value)}, is at the {side} edge of {content['space'][name]}: widen it there.")
    if failed := [trial for trial in content["trials"] if trial["state"] == "failed"]:
        reasons = list(dict.fromkeys(trial.get("reason", "") for trial in failed))
        others = len(reasons) - 1
        more = f" and {others} other reason{'s' * (others > 1)}" if others else ""
        found.append(f"{len(failed)} of {len(states)} trials failed: {reasons[0]}{more}.")
    if states.count("done") < FEW:
        found.append(f"Only {states.count('done')} trials were finished: what mattered, and what is best, may be chance.")
    if content["script"] == "pretrain":
        found.append("The figure is the pretext's: that it is better need not help a task. Fine-tune, or probe, to know.")
    return found


def edge(values: Mapping[str, Any], value: Any) -> str:
    """Which end of its range a value lies at: lower, upper, or neither; choices have no ends."""
    if "of" in values:
        return ""
    low, high, here = (math.log(v) if values["log"] else v for v in (values["from"], values["to"], value))
    place = (here - low) / (high - low)
    return "lower" if place <= EDGE else "upper" if place >= 1 - EDGE else ""


def trials(content: Mapping[str, Any]) -> str:
    """The table of all trials, the best first."""
    sign = -1 if content["higher_is_better"] else 1
    order = ["done", "ended early", "not finished", "failed"]
    ranked = sorted(
        content["trials"], key=lambda t: (order.index(t["state"]), sign * t["value"] if t["value"] is not None else 0)
    )
    rows = [
        [
            Link(f"{t['number']:03d}", target_of(t)),
            *(_figure(t["settings"][name]) for name in content["space"]),
            "-" if t["value"] is None else f"{t['value']:.4f}",
            t["state"],
            t["steps"],
            f"{t['seconds']:.0f}",
        ]
        for t in ranked
    ]
    reasons = [f"Trial {t['number']}: {t['reason']}" for t in content["trials"] if t.get("reason")]
    header = ["trial", *content["space"], content["watched"], "state", "steps", "seconds"]
    return table(header, rows, "Trials") + folded("Why trials failed", bullets(reasons))


def target_of(trial: Mapping[str, Any]) -> str:
    """What a trial's number leads to: its report, its curves where it was ended early, or what it said when it failed."""
    number = f"{trial['number']:03d}"
    places = {"done": f"trials/{number}/report.html", "failed": f"logs/{number}.txt"}
    return places.get(trial["state"], f"trials/{number}/progress.png")


def uses(content: Mapping[str, Any], folder: Path) -> list[str]:
    """What to do with the outcome."""
    recipe = folder / "best.json"
    return [
        f"{recipe} is the recipe with the chosen settings: python ssl_{content['script']}.py {recipe}",
        "The same command with more --trials goes on from here; one with another space needs another folder.",
    ]


def _plot(content: Mapping[str, Any], name: str) -> str:
    light, dark = (by_setting(content, name, dark) for dark in (False, True))
    return picture(light, f"{content['watched']} by {name}", dark=dark)


def _by_importance(content: Mapping[str, Any]) -> list[str]:
    """The settings, what mattered most first."""
    return sorted(content["space"], key=lambda name: -content["importance"].get(name, 0.0))


def _rule(content: Mapping[str, Any]) -> str:
    counts = [f"{[t['state'] for t in content['trials']].count(s)} {s}" for s in ("done", "ended early", "failed")]
    better = "higher" if content["higher_is_better"] else "lower"
    rule = "A trial is ended early where its best so far is worse than the median of the finished ones at that step"
    return f"{', '.join(counts)}; {better} is better. {rule}, not in its first third. Points far off lie outside the picture."


def _shared(content: Mapping[str, Any]) -> dict[str, Any]:
    out = {"out", "judge", "saliency", "follows", "expect", "takes"}
    return {name: value for name, value in flat(content["settings"]).items() if name not in {*content["space"], *out}}


def _figure(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else plain(value)

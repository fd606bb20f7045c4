"""`--dry-run`: the time, memory and room that a run will need, from pieces of it done once; nothing of the run is written.

Where the store has all cases, the pieces are done on them; otherwise on noise, but for one case that is packed.
"""

import os
import tempfile
import time
from pathlib import Path

from medssl import finetune, pretrain
from medssl.config import Finetune, Shared
from medssl.data import geometry_of, header_problems, split_of, store_path
from medssl.device import Compute, choose
from medssl.fingerprints import Fingerprints
from medssl.forecast import Pieces, Plan, hours, seconds_of
from medssl.launch import cores
from medssl.made_up import MadeUp
from medssl.memory import peak_memory
from medssl.pack import Wanted, find_shards, prepared_bytes, still_true
from medssl.preparation import prepare_case
from medssl.problems import InputError
from medssl.rehearsal import Quiet, Rehearsal, rehearsal_of
from medssl.splits import Case
from medssl.store import Store
from medssl.time_spent import bound_by, time_of, time_spent
from medssl.timing import Stepping, time_checkpoints, time_curves, time_finish, time_steps, time_validation, timed
from medssl.wall_clock import machine_of


def estimate(settings: Shared, began: float | None = None) -> str:
    """Do pieces of a run and say what the whole will take; `began` is the time.monotonic() at which the program did."""
    began = time.monotonic() if began is None else began
    compute = choose(settings)
    fine = isinstance(settings, Finetune)
    split = finetune.labelled_split(settings) if isinstance(settings, Finetune) else split_of(settings)
    parts = finetune.parts_of(settings) if isinstance(settings, Finetune) else list(pretrain.PARTS)
    wanted = Wanted(split, parts, geometry_of(settings), labels=fine)
    problems = header_problems(settings, split, parts, fine)
    if problems:
        raise InputError(problems)
    store, lacking = store_of(settings, wanted)
    rehearsal = rehearsal_of(settings, compute, split, store)
    start = time.monotonic() - began
    pack = pack_seconds(settings, wanted, lacking)
    stepping = time_steps(settings, compute, rehearsal)
    pieces, disk = pieces_of(settings, rehearsal, stepping, start, pack)
    memory = peak_memory(compute.device) + (stepping.workers if compute.device.type == "cpu" else 0.0)
    lines = [f"disk        {disk / 1e9:.3f} GB for the run folder", store_line(settings, wanted, lacking)]
    return "\n".join([*told(settings, compute, stepping, pieces, memory), *lines])


def store_of(settings: Shared, wanted: Wanted) -> tuple[Store, list[Case]]:
    """The run's store, or one of noise, and the cases that are to be packed."""
    path = store_path(settings, wanted)
    store = find_shards(path, wanted.geometry).store
    store.entries = still_true(store, wanted, Fingerprints(path))
    lacking = [case for case in wanted.cases if case.id not in store.entries]
    return (MadeUp(settings, wanted.split, wanted.geometry) if lacking else store), lacking


def pack_seconds(settings: Shared, wanted: Wanted, lacking: list[Case]) -> float:
    """Prepare one of the cases that are to be packed; gives the seconds of all, side by side as they are packed.

    Raises InputError for what is wrong with that case.
    """
    if not lacking:
        return 0.0
    prints = Fingerprints(store_path(settings, wanted))
    seconds, found = timed(lambda: prepare_case(wanted.split, lacking[0], wanted.geometry, wanted.labels, prints))
    if isinstance(found, list):
        raise InputError(found)
    return seconds * len(lacking) / min(max(settings.workers, 1), cores())


def pieces_of(settings: Shared, rehearsal: Rehearsal, stepping: Stepping, start: float, pack: float) -> tuple[Pieces, int]:
    """Do what comes beside the steps once, in a temporary folder on the disk of the run; gives also the bytes of that."""
    validation, figures = time_validation(settings, rehearsal)
    with tempfile.TemporaryDirectory(prefix=".medssl-dry-run-", dir=disk_of(settings.out)) as folder:
        inside = settings.model_copy(update={"out": Path(folder)})
        run = Quiet.open(inside, "finetune" if isinstance(settings, Finetune) else "pretrain")
        latest, best = time_checkpoints(run, stepping.state)
        drawing = time_curves(settings, run, stepping.lines[-1], figures)
        judging = validation * rehearsal.judged / rehearsal.cases + 2 * drawing  # the report draws on light and dark
        finish = time_finish(settings, run, rehearsal) if pack == 0 else judging
        run.close()
        disk = sum(path.stat().st_size for path in run.folder.iterdir())
    start += max(stepping.first - stepping.pace, 0.0)
    return Pieces(start, stepping.pace, validation + drawing, latest, best, finish, pack), disk


def disk_of(out: Path) -> Path | None:
    """The nearest folder above the run's that is there and can be written to; None for the system's temporary one."""
    above = next((folder for folder in out.absolute().parents if folder.is_dir()), None)
    return above if above is not None and os.access(above, os.W_OK) else None


def told(settings: Shared, compute: Compute, stepping: Stepping, pieces: Pieces, memory: float) -> list[str]:
    """What was found, a line each."""
    spent = time_spent(stepping.lines)
    assert spent is not None
    plan = Plan(settings.steps, settings.validate_every, settings.checkpoint_every, settings.checkpoint_minutes)
    parts = seconds_of(pieces, plan)
    listed = ", ".join(f"{name} {time_of(seconds)}" for name, seconds in parts.items() if seconds)
    crops = spent.steps * settings.batch_size
    share = ", ".join(f"{name} {time_of(seconds / crops)}" for name, seconds in spent.loading.items())
    most = " at most" if settings.patience else ""
    pace = f"with its data {time_of(pieces.pace)}, {settings.batch_size / pieces.pace:.1f} crops a second"
    return [
        f"device      {compute}",
        f"network     {settings.network.name}, {stepping.parameters / 1e6:.1f} million parameters",
        f"step        {time_of(spent.a_step)}; {pace}",
        f"data        {share} a crop{' (of noise: there is no store yet)' if pieces.pack else ''}",
        f"run         {hours(sum(parts.values()))}{most} for {settings.steps} steps: {listed}",
        f"bound by    {bound_by(spent, machine_of(settings, compute)).removeprefix('Bound by ')}",
        f"memory      {memory / 1e9:.2f} GB{'' if compute.device.type != 'cpu' else f', with {settings.workers} workers'}",
    ]


def store_line(settings: Shared, wanted: Wanted, lacking: list[Case]) -> str:
    """Where the store is, and how much is to be added to it."""
    folder = store_path(settings, wanted).parent
    if not lacking:
        return f"store       complete, in {folder}"
    room = sum(prepared_bytes(case, wanted.geometry) for case in lacking) / 1e9
    return f"store       {len(lacking)} cases to pack, at most {room:.2f} GB in {folder}"

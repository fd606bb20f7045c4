"""The part of a run's report that says where its time went, and how much memory it took."""

from itertools import chain

from medssl.reports.page import bars, bullets, paragraph
from medssl.runs import Run
from medssl.time_spent import LOADING, Machine, TimeSpent, bound_by, time_of, time_spent


def time_parts(run: Run) -> list[str]:
    """Give what bounds the run, a bar for each part of the wall time, the loader's work, and the memory."""
    s = run.summary
    last = {"checkpoint_s": s.get("checkpoint_s", 0.0)}  # which came after the last line
    spent = time_spent(chain(run.metrics(), [last]), s.get("seconds"))
    if spent is None:
        return []
    machine = Machine(**s["machine"]) if "machine" in s else None
    rows = [
        (name, share, f"{share:.1%}, {time_of(spent.parts[name])}") for name, share in spent.shares.items() if share >= 0.0005
    ]
    return [
        paragraph(bound_by(spent, machine) if machine else ""),
        bars(rows, "Shares of the wall time"),
        bullets([loading(spent, machine.workers if machine else None), *beside(run)]),
    ]


def loading(spent: TimeSpent, workers: int | None) -> str:
    """What the loader worked, which is no part of the wall time where workers did it."""
    reading, views = (spent.loading[name] for name in LOADING.values())
    where = {None: "The loader's own work", 0: "The wait for data is the loader's work"}.get(
        workers, f"Beside the steps, in {workers} {'worker' if workers == 1 else 'workers'}"
    )
    share = f"{(reading + views) / spent.total:.0%} of the wall time" + (" of one" if workers else "")
    return f"{where}: reading {time_of(reading)}, views and checksums {time_of(views)}, {share}."


def beside(run: Run) -> list[str]:
    """What is known besides the steps: the judging at the end and the memory."""
    judging, memory = run.summary.get("judging_seconds"), run.summary.get("memory_mb")
    return [
        *([f"Judging the {run.summary.get('part', 'test')} cases at the end took {time_of(judging)} more."] if judging else []),
        *([f"Memory: {memory / 1000:.2f} GB at most."] if memory else []),
    ]

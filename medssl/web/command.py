"""`medssl serve RUN [RUN ...] --port 8000`: trained networks on a web page and behind a JSON API."""

import argparse
import gc
import ipaddress
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medssl.problems import InputError, Problem, printable
from medssl.web.limits import MIB, Limits

if TYPE_CHECKING:
    from medssl.prediction.model import Model

DEFAULTS = Limits()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `medssl serve`."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a fine-tuning; of several the page lets one choose")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at [127.0.0.1: this machine alone]")
    parser.add_argument("--port", type=int, default=8000, help="0: any that is free [8000]")
    parser.add_argument("--token", help="a word that every client must know; the printed address has it")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name that this server goes by, e.g. of a proxy"
    )
    parser.add_argument("--example", type=Path, metavar="FILE", help="an image to try, in place of a made-up one")
    parser.add_argument("--slots", type=int, default=DEFAULTS.slots, metavar="N", help="predictions at once [1]")
    parser.add_argument("--queue", type=int, default=DEFAULTS.queue, metavar="N", help="images that may wait [32]")
    parser.add_argument("--max-mib", type=int, default=DEFAULTS.body // MIB, metavar="N", help="of one upload [512]")
    parser.add_argument("--max-voxels", type=int, default=DEFAULTS.voxels, metavar="N", help="of one image [2^28]")
    parser.add_argument("--keep", type=float, default=DEFAULTS.kept_s / 60, metavar="MINUTES", help="of results [30]")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads [all cores]")


def run(options: argparse.Namespace) -> None:
    """Load the networks and serve them until a signal ends it; raises InputError."""
    limits = limits_of(options)
    refuse_without_fastapi()
    from medssl.signals import held
    from medssl.stopping import Stopped
    from medssl.web.api import Service, application
    from medssl.web.connections import listening, server
    from medssl.web.guard import Guard
    from medssl.web.queue import Queue
    from medssl.web.results import Results, temporary_folder
    from medssl.web.work import worker

    slots = [named_models(options) for _ in range(limits.slots)]
    socket = listening(options.host, options.port)
    with temporary_folder() as folder:
        queue, results = Queue([worker(models, limits) for models in slots], limits), Results(folder, limits)
        app = application(Service(slots[0], limits, queue, results, options.example))
        announce(options, socket.getsockname()[1], list(slots[0]))
        guard = Guard(app, hosts_of(options), options.token, queue.refuse)
        sys.setswitchinterval(2e-4)  # else each answer waits 5 ms for every thread that computes
        gc.freeze()  # else all that torch imported is looked through every few seconds, for a third of one
        serving = server(guard, limits, queue, results)
        with held():  # the server hears the signal itself
            serving.run([socket])
        if serving.stopped_by:
            raise Stopped(serving.stopped_by)


def limits_of(options: argparse.Namespace) -> Limits:
    """The limits, as options change them; raises InputError."""
    bounds = {
        "slots": (options.slots, 1, 64), "queue": (options.queue, 0, 10_000), "port": (options.port, 0, 65_535),
        "max-mib": (options.max_mib, 1, 2**20), "max-voxels": (options.max_voxels, 1, 2**31), "keep": (options.keep, 0.1, 1e5),
    }  # fmt: skip
    problems = [
        Problem("serve", f"--{name}", f"{found:g}", f"{low:g} to {high:g}")
        for name, (found, low, high) in bounds.items()
        if not low <= found <= high
    ]
    if options.token is not None and (len(options.token) < 8 or not options.token.isascii() or not options.token.isalnum()):
        problems.append(Problem("serve", "--token", "another word", "8 or more letters and digits"))
    if options.example is not None and not options.example.is_file():
        problems.append(Problem(str(options.example), "--example", "no such file", "an image"))
    if problems:
        raise InputError(problems)
    return Limits(
        slots=options.slots, queue=options.queue, body=options.max_mib * MIB, voxels=options.max_voxels,
        kept_s=options.keep * 60,
    )  # fmt: skip


def refuse_without_fastapi() -> None:
    """Raise InputError where the packages of the extra are not installed."""
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        expected = "the web extra: pip install -e '.[web]'"
        raise InputError([Problem("serve", "package", f"no {error.name}", expected)]) from None


def named_models(options: argparse.Namespace) -> dict[str, Sequence["Model"]]:
    """The networks of one slot by the names of their runs; raises InputError."""
    from medssl.prediction.model import load_models

    found: dict[str, Sequence[Model]] = {}
    for run in options.runs:
        models = load_models([run], options.device, options.threads)
        if models[0].geometry.roi is not None:
            raise InputError([Problem(str(run), "roi", "a network that sees objects cut out of masks", "one of whole images")])
        name = printable(models[0].name)
        found[name if name not in found else f"{name}-{len(found) + 1}"] = models
    return found


def hosts_of(options: argparse.Namespace) -> set[str] | None:
    """The names that requests may call this server by; None for any, where other machines reach it by names unknown here."""
    from medssl.web.guard import LOCAL

    names = {name.lower() for name in options.allow_host}
    if is_local(options.host):
        return {*LOCAL, options.host.lower(), *names}
    return {*LOCAL, options.host.lower(), *names} if names else None


def is_local(host: str) -> bool:
    """Whether an address is this machine's alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def announce(options: argparse.Namespace, port: int, names: Sequence[str]) -> None:
    """Say where the page is, and who else can reach it."""
    host = f"[{options.host}]" if ":" in options.host else options.host
    if not is_local(options.host):
        guarded = "with the token" if options.token else "also without a token (--token WORD asks for one)"
        print(f"warning: other machines reach this server, {guarded}; nothing is encrypted", file=sys.stderr)
    print(f"{', '.join(names)}: research use only, not a medical device; Ctrl-C ends", file=sys.stderr)
    print(f"http://{host}:{port}/" + (f"#token={options.token}" if options.token else ""), flush=True)

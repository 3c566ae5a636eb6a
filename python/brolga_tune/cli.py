"""The command `brolga-tune`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path

from . import records
from .binary import Brolga, Failed
from .node import Event
from .plan import Kernel, Plan
from .records import Log

#: Of the budget, what workers search for; the rest is for the finalists and the whole model.
SEARCH = 0.7
#: Of the budget, the least that is left for that, and all of it when the search was interrupted.
LAST = 0.2

DESCRIPTION = """\
Search better schedules for a model's kernels, on the machines of a Ray cluster.

Each worker runs `brolga tune` for one kernel at a time and sends its records back; they are added to the output as
they arrive, and searches that begin later begin with them. At the end this machine times the best ones in the whole
model and keeps what makes it faster, so it should be one of the kind that the model is to run on. A worker that is
lost loses its part and no more. Nodes need Ray and `brolga`; this package and the model travel with the work.
"""

EPILOG = """\
Options of `brolga tune` itself, such as --set, --pin or --rules, stand behind `--` and are handed to it as they are.
Ctrl-C ends the search and keeps what was found. Called again with the same output, it goes on where it ended.

Examples:
  brolga-tune model.onnx -o model.tune --at batch=8
  brolga-tune model.onnx -o model.tune --workers 2 --threads 1 --budget 2m
  brolga-tune model.onnx -o model.tune --address auto --threads 8 --budget 1h
  brolga-tune model.onnx -o model.tune --address 10.0.0.1:6379 --with model.onnx.data -- --set seq=128
  brolga compile model.onnx --tune model.tune -o model.o
"""


def seconds(text: str) -> float:
    """A time with its unit: 90s, 5m, 1h."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"`{text}` is no time, such as 90s, 5m or 1h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def positive(text: str) -> int:
    """A number of at least one."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"`{text}` is no number from 1 on")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """The options."""
    p = argparse.ArgumentParser(
        "brolga-tune", description=DESCRIPTION, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = p.add_argument
    add(
        "model",
        metavar="MODEL",
        type=Path,
        help="the model: ONNX, or the printed text of any level down to structured kernels",
    )
    add(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        required=True,
        help="the records; those that are there already are kept, and the search begins with them",
    )
    add(
        "--budget",
        metavar="TIME",
        type=seconds,
        default=300.0,
        help="all of the time that it may take, from the first worker on: 90s, 5m, 1h (default: 5m)",
    )
    add(
        "--address",
        metavar="ADDRESS",
        help="the Ray cluster: auto, HOST:PORT or ray://HOST:PORT (default: one of this machine alone)",
    )
    add(
        "--workers",
        metavar="N",
        type=positive,
        help="workers, at most as many as have --threads CPUs of a node each (default: as many as there is room for)",
    )
    add(
        "--threads",
        metavar="N",
        type=positive,
        help="threads that run the model, here and on each worker (default: one for each core of this machine)",
    )
    add(
        "--brolga",
        metavar="PATH",
        default="brolga",
        help="the binary, on the nodes and here (default: brolga, on PATH)",
    )
    add("--brolga-here", metavar="PATH", help="the binary on this machine, where it lies elsewhere than on the nodes")
    add(
        "--at",
        metavar="SYMBOL=N",
        action="append",
        default=[],
        help="size of a symbolic dimension to time at (may be repeated)",
    )
    add(
        "--kernel",
        metavar="NAME",
        action="append",
        default=[],
        help="only this kernel (may be repeated); `brolga tune MODEL --list` names them",
    )
    add(
        "--from",
        metavar="FILE",
        dest="begin",
        type=Path,
        action="append",
        default=[],
        help="records to begin with (may be repeated)",
    )
    add("--target", metavar="TARGET", help="machine to compile for, as in `brolga tune`")
    add(
        "--with",
        metavar="FILE",
        dest="beside",
        type=Path,
        action="append",
        default=[],
        help="a file that the model names, such as its external data, shipped with it (may be repeated)",
    )
    add("--shared", action="store_true", help="the model lies at the same path on all nodes, and is not shipped")
    add(
        "--foreign",
        action="store_true",
        help="take nodes of another CPU, target or version of brolga too: their records do not fit this machine, "
        "their schedules are tried here",
    )
    add("--json", action="store_true", help="print JSON")
    return p


def shipped(model: Path, beside: Sequence[Path]) -> tuple[str, dict[str, bytes]]:
    """The model's name and the contents of all files, by their paths from the model's folder. Raises `Failed`."""
    root = model.resolve().parent
    files = {}
    for path in [model, *beside]:
        whole = path.resolve()
        if not whole.is_relative_to(root):
            raise Failed(f"{path}: lies outside of the model's folder {root}, and cannot be shipped with it (--shared)")
        files[str(whole.relative_to(root))] = path.read_bytes()
    return model.name, files


def merged(log: Log, files: Sequence[Path]) -> None:
    """Adds what other files have."""
    for path in files:
        log.add(records.parse(path.read_text(), str(path)))


def tune(args: argparse.Namespace, say: Callable[[Event], bool]) -> str:
    """Searches; gives what is to be printed. Raises `Failed`, `OSError` and `ValueError`."""
    # Ray takes a second or two to be imported, which `--help` should not.
    from .cluster import Cluster, Search

    begun = time.monotonic()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = args.threads or cores
    options = tuple(w for at in args.at for w in ("--at", at)) + tuple(args.options)
    brolga = Brolga(args.brolga, threads, args.target, options)
    own = replace(brolga, path=args.brolga_here or args.brolga)
    if args.shared:
        model, files = str(args.model.resolve()), None
    else:
        model, files = shipped(args.model, args.beside)
    here = own.place()
    listing = time.monotonic()
    kernels = own.kernels(args.model)
    listing = time.monotonic() - listing
    check_names(kernels, args.kernel)
    log = Log(args.output)
    merged(log, args.begin)
    local = args.workers or max(1, cores // threads)
    if args.address is None and local * threads > cores:
        print(
            f"warning: {local} workers of {threads} threads share {cores} cores: what they time is mostly noise",
            file=sys.stderr,
        )
    # Ray tells of lost workers on standard output, which is for the result.
    with redirect_stdout(sys.stderr), Cluster(args.address, local * threads) as cluster:
        workers = args.workers or max(1, cluster.room(threads))
        plan = Plan(kernels, SEARCH * args.budget, workers, listing, args.kernel)
        outcome = Search(plan, log, brolga, here, args.foreign, say).run(model, files)
    for place in sorted(outcome.foreign, key=str):
        print(f"warning: records of {place} do not fit this machine, {here}", file=sys.stderr)
    if outcome.parts == 0 and not outcome.interrupted:
        print("warning: no worker came back in time; a larger --budget gives them some", file=sys.stderr)
    best = records.finalists(log.records)
    log.close()
    rest = LAST * args.budget
    if not outcome.interrupted:
        rest = max(rest, args.budget - outcome.seconds)
    with tempfile.TemporaryDirectory(prefix="brolga-tune-") as folder:
        begin = Path(folder) / "finalists.tune"
        begin.write_text(best)
        printed = own.finish(args.model, args.output, begin, rest, args.kernel, args.json)
    if not args.json:
        return printed
    report = json.loads(printed)
    report |= {
        "candidates": report["candidates"] + outcome.candidates,
        "workers": workers,
        "parts": outcome.parts,
        "failed": outcome.failed,
        "lost": outcome.lost,
        "seconds": time.monotonic() - begun,
    }
    return json.dumps(report, indent=2) + "\n"


def check_names(kernels: Sequence[Kernel], only: Sequence[str]) -> None:
    """Raises `Failed` for a name that no kernel has."""
    known = [k.name for k in kernels]
    for name in only:
        if name not in known:
            raise Failed(f"runs call no kernel @{name}; they call @{', @'.join(known)}")


def on_stderr(event: Event) -> bool:
    """Says an event to people, as `brolga` says its notes; the search is to go on."""
    print(f"note: worker {event.worker} {event.kind}: {event.text}", file=sys.stderr)
    return True


def main(argv: Sequence[str] | None = None, say: Callable[[Event], bool] = on_stderr) -> int:
    """Runs the command; gives its exit status. `say` is told of parts and workers, and says whether to go on."""
    words = list(sys.argv[1:] if argv is None else argv)
    at = words.index("--") if "--" in words else len(words)
    args = parser().parse_args(words[:at])
    args.options = words[at + 1 :]
    try:
        print(tune(args, say), end="")
    except (Failed, OSError, ValueError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0

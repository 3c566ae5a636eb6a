"""What runs on a node: a worker keeps a copy of the model and some cores, and searches the parts that it is given."""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from .binary import Brolga, Failed
from .plan import Part
from .records import Place


@dataclass(frozen=True)
class Introduction:
    """Who a worker is."""

    node: str
    pid: int
    cores: tuple[int, ...]
    #: The machine; or why the worker is of no use there.
    place: Place | str


@dataclass(frozen=True)
class Result:
    """What a part found: lines of records and the seconds that it took, or why there are none."""

    lines: str
    seconds: float
    failed: str | None = None


@dataclass(frozen=True)
class Event:
    """Something to say of a worker and its part: `joined`, `left-out`, `begun`, `arrived`, `failed` or `lost`."""

    kind: str
    worker: int
    text: str
    part: Part | None = None
    introduction: Introduction | None = None


class Worker:
    """A worker. In `cluster` it is an actor."""

    def __init__(self, brolga: Brolga) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="brolga-tune-")
        self.root = Path(self.folder.name)
        self.locks: list[IO[str]] = []
        self.brolga = replace(brolga, cores=self.own_cores(brolga.threads))
        self.model = Path()

    def own_cores(self, threads: int) -> tuple[int, ...]:
        """Cores that no other worker of this node has, as long as this process lives; none where they are too few.

        The binary keeps its threads on the first cores that it may be on, so workers side by side need others each.
        """
        if not hasattr(os, "sched_getaffinity"):
            return ()
        import fcntl

        mine = []
        folder = Path(tempfile.gettempdir()) / f"brolga-tune-cores-{os.getuid()}"
        folder.mkdir(exist_ok=True)
        for core in sorted(os.sched_getaffinity(0)):
            lock = (folder / str(core)).open("w")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            self.locks.append(lock)
            mine.append(core)
            if len(mine) == threads:
                return tuple(mine)
        self.locks.clear()
        return ()

    def introduce(self, model: str, files: Mapping[str, bytes] | None) -> Introduction:
        """Takes the model, and says where the worker is and whether the binary is there.

        `files` are the model and what it names, by their paths from its folder; without, it is read where it lies.
        """
        self.model = Path(model)
        if files is not None:
            folder = self.root / "model"
            for name, content in files.items():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            self.model = folder / model
            self.brolga = replace(self.brolga, folder=folder)
        try:
            place: Place | str = self.brolga.place()
        except Failed as e:
            place = str(e)
        return Introduction(socket.gethostname(), os.getpid(), self.brolga.cores, place)

    def search(self, part: Part, begin: str) -> Result:
        """Searches a part, beginning with these lines of records."""
        start = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            known, output = Path(folder) / "begin.tune", Path(folder) / "part.tune"
            known.write_text(begin)
            try:
                lines = self.brolga.search(self.model, part.kernel.name, part.seconds, part.seed, known, output)
            except Failed as e:
                return Result("", time.monotonic() - start, str(e))
        return Result(lines, time.monotonic() - start)

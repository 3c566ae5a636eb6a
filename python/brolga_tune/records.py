"""The records: lines of JSON, one file, in the format of `brolga tune`.

Lines are taken as they stand and never written anew, so that what the binary wrote is what the log has. Invariant: a
line is in the log once, and whole; a file that ends within a line is continued behind it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What a line of each kind is known by, in this order: the line of a model says how many schedules were `kept`.
KINDS = ("workload", "trial", "graph", "model", "kept")
#: Faster schedules of a kernel that a search begins with: each of them costs it a few runs.
FIRST = 8


@dataclass(frozen=True)
class Place:
    """The machine that a record was made on, and the compiler that made it."""

    target: str
    cpu: str
    compiler: str

    def __str__(self) -> str:
        return f"{self.cpu}, {self.target}, {self.compiler}"


@dataclass(frozen=True)
class Record:
    """A line, read and as it stands."""

    text: str
    value: dict[str, Any] = field(compare=False)

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return next(k for k in KINDS if k in self.value)

    @property
    def workload(self) -> str | None:
        """The key of the kernel that it is about; none for what is about a whole model."""
        return None if self.kind in ("graph", "model") else str(self.value[self.kind])

    @property
    def place(self) -> Place | None:
        """Where it was made; the text of a kernel was made nowhere."""
        if self.kind == "workload":
            return None
        return Place(self.value["target"], self.value["cpu"], self.value["compiler"])

    @property
    def faster(self) -> bool:
        """Whether it is a candidate that beat the one before it."""
        return self.kind == "trial" and self.value["outcome"] == "faster"


def parse(text: str, origin: str) -> list[Record]:
    """Reads lines; a last one that has no end and is none was being written when its writer ended, and is left out.

    Raises `ValueError` with the origin and number of the first line that is no record.
    """
    lines = text.split("\n")
    out = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict) or not any(k in value for k in KINDS):
                raise ValueError(f"expected an object with one of {', '.join(KINDS)}")
            out.append(Record(line, value))
        except ValueError as e:
            if number == len(lines):
                break
            raise ValueError(f"{origin}: line {number} is no record: {e}") from None
    return out


class Log:
    """The log of a run: a file that lines are added to, each once."""

    def __init__(self, path: Path) -> None:
        """Opens a log, with what it has. Raises `OSError` and `ValueError` as reading does."""
        self.path = path
        text = path.read_text() if path.exists() else ""
        self.records = parse(text, str(path))
        self.texts = {r.text for r in self.records}
        self.file = path.open("a")
        # A line that was not finished stays alone.
        if text and not text.endswith("\n"):
            self.write("\n")

    def write(self, text: str) -> None:
        """Writes at once, so that it is there whatever happens next."""
        self.file.write(text)
        self.file.flush()

    def add(self, records: Iterable[Record]) -> list[Record]:
        """Adds those that are new, and gives them."""
        new = list({r.text: r for r in records if r.text not in self.texts}.values())
        self.write("".join(f"{r.text}\n" for r in new))
        self.texts.update(r.text for r in new)
        self.records += new
        return new

    def close(self) -> None:
        """Ends writing."""
        self.file.close()


def schedules(records: Iterable[Record], workload: str) -> set[str]:
    """The schedules of a kernel's candidates that won."""
    return {r.value["schedule"] for r in records if r.faster and r.workload == workload}


def gains(records: Iterable[Record]) -> dict[tuple[Place, str], float]:
    """What candidates of one kernel that won take, over the time of the schedule that is chosen without tuning.

    A candidate is timed against the best one so far, which is the chosen one or won itself, in a line before.
    """
    out: dict[tuple[Place, str], float] = {}
    for r in records:
        if not r.faster or r.place is None or r.value.get("ratio") is None:
            continue
        gain = r.value["ratio"] * out.get((r.place, r.value["incumbent"]), 1.0)
        key = (r.place, r.value["schedule"])
        out[key] = min(gain, out.get(key, gain))
    return out


def winners(records: Iterable[Record], first: int = FIRST) -> Iterator[Record]:
    """The best candidates of one kernel that won, the best one first: beside it, the others are soon done with."""
    records = list(records)
    of = gains(records)
    best: dict[str, tuple[float, Record]] = {}
    for r in records:
        if not r.faster or r.place is None:
            continue
        found = (of.get((r.place, r.value["schedule"]), 1.0), r)
        schedule = r.value["schedule"]
        if schedule not in best or found[0] < best[schedule][0]:
            best[schedule] = found
    ranked = sorted(best.values(), key=lambda found: (found[0], found[1].text))
    return (r for _, r in ranked[:first])


def to_begin_with(records: Iterable[Record], workload: str) -> str:
    """What a search of a kernel begins with: what was kept or won, and all that lost, to be tried no more."""
    own = [r for r in records if r.workload == workload]
    other = [r for r in own if not r.faster]
    return "".join(f"{r.text}\n" for r in [*other, *winners(own)])


def finalists(records: Iterable[Record]) -> str:
    """The best candidates of each kernel, which are timed in the whole model, and what was decided about graphs before."""
    kernels: dict[str, list[Record]] = {}
    decided: list[Record] = []
    for r in records:
        if r.kind == "graph":
            decided.append(r)
        if r.workload is not None:
            kernels.setdefault(r.workload, []).append(r)
    best = (r for own in kernels.values() for r in winners(own))
    return "".join(f"{r.text}\n" for r in [*decided, *best])


def foreign(records: Iterable[Record], here: Place) -> set[Place]:
    """Places of records that are none of this machine's: they are not applied here."""
    return {r.place for r in records if r.place is not None and r.place != here}

"""Workers of a Ray cluster, given parts until the time is up.

Ray starts the workers, one actor for so many CPUs, carries the model and the records to them, notices the loss of one
and starts it again, on the same node or another. What is left to this module is what Ray cannot know: which part is
next, that a lost one is searched by whoever is free, and that a machine of another kind finds what does not fit here.

    actor ──introduces itself──▶ fits? ──▶ part, records so far ──▶ lines ──▶ log ──▶ next part
                                                   │
                                                   └─ lost: its kernel has its turn again; Ray starts the actor again
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from . import records
from .binary import Brolga, Failed
from .node import Event, Introduction, Result, Worker
from .plan import Part, Plan
from .records import Log, Place

#: Seconds until a worker has to have introduced itself, before the search is given up.
START = 120.0
#: Seconds beyond a part's own that are waited for it, when the search's time is over.
GRACE = 30.0


@dataclass
class Outcome:
    """What became of a search."""

    parts: int = 0
    failed: int = 0
    lost: int = 0
    candidates: int = 0
    #: Places of workers that were left out, or whose records do not fit this machine.
    foreign: set[Place] = field(default_factory=set)
    interrupted: bool = False
    #: What it took, from the first worker on.
    seconds: float = 0.0


class Cluster:
    """A connection to Ray, or a Ray of this process's own."""

    def __init__(self, address: str | None, cpus: int) -> None:
        """Connects to an address; without, begins a Ray on this machine with so many CPUs."""
        import brolga_tune

        # Nodes need the binary, and not this package: it travels with the work.
        options: dict[str, Any] = {"runtime_env": {"py_modules": [brolga_tune]}, "log_to_driver": False}
        options |= (
            {"address": address} if address else {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        )
        try:
            ray.init(logging_level=logging.ERROR, **options)
        except Exception as e:
            # Ray has no error of its own for a cluster that is not there or does not start.
            ray.shutdown()
            raise Failed(f"Ray: {e}") from e

    def __enter__(self) -> Cluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ray.shutdown()

    def room(self, threads: int) -> int:
        """Workers of so many threads that the cluster's nodes have the CPUs for."""
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        alive = [n for n in nodes if n["Alive"]]
        return sum(int(n["Resources"].get("CPU", 0)) // threads for n in alive)


class Search:
    """A search by workers."""

    def __init__(
        self,
        plan: Plan,
        log: Log,
        brolga: Brolga,
        here: Place,
        take_foreign: bool,
        say: Callable[[Event], bool],
    ) -> None:
        self.plan, self.log, self.brolga, self.here, self.take_foreign = plan, log, brolga, here, take_foreign
        self.tell = say
        self.go_on = True
        self.model = ""
        self.files: Any = None
        self.actors: dict[int, Any] = {}
        self.introduced: dict[int, Introduction] = {}
        self.idle: list[int] = []
        #: Those that have brought something.
        self.proven: set[int] = set()
        #: What is waited for: a worker's part, or its introduction.
        self.waiting: dict[Any, tuple[int, Part | None]] = {}
        #: When the first worker was there.
        self.begun: float | None = None
        self.outcome = Outcome()
        self.why_not: dict[int, str] = {}

    def run(self, model: str, files: Mapping[str, bytes] | None) -> Outcome:
        """Searches until the plan's seconds are over, from the first worker on, or nothing is left to search.

        Ctrl-C ends it with what there is, and so does whoever is told of an event and says so. Raises `Failed` when no
        worker is of any use.
        """
        called = time.monotonic()
        # As long as it is held here, workers that are started again get it too.
        self.model, self.files = model, ray.put(files)
        actor = ray.remote(Worker).options(
            num_cpus=self.brolga.threads, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD"
        )
        for number in range(1, self.plan.workers + 1):
            self.actors[number] = actor.remote(self.brolga)
            self.ask(number)
        try:
            while self.go_on:
                now = time.monotonic()
                if self.begun is None and self.idle:
                    self.begun = now
                rest = self.plan.seconds - (now - (self.begun or now))
                self.give(rest)
                if not self.waiting or self.late(rest, now - called):
                    break
                done, _ = ray.wait(list(self.waiting), num_returns=1, timeout=1.0)
                for reference in done:
                    self.take(reference)
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        finally:
            for a in self.actors.values():
                ray.kill(a, no_restart=True)
        self.outcome.seconds = time.monotonic() - (self.begun or time.monotonic())
        of_use = len(self.introduced.keys() - self.why_not.keys())
        if not of_use and not self.proven and not self.outcome.interrupted:
            raise Failed("no worker can search:\n" + "\n".join(self.reasons()))
        return self.outcome

    def reasons(self) -> list[str]:
        """Why there is no worker, each reason once."""
        reasons = list(dict.fromkeys(self.why_not.values()))
        if len(self.why_not) < len(self.actors):
            reasons.append(
                f"the cluster has not started a worker within {START:.0f} s: "
                f"each needs {self.brolga.threads} CPUs of one node (--threads)"
            )
        return reasons

    def late(self, rest: float, waited: float) -> bool:
        """Whether nothing of what is waited for is worth it any more."""
        if any(part for _, part in self.waiting.values()):
            return rest + self.plan.longest + GRACE < 0
        # Only workers that have not begun are waited for: a cluster that has none yet may get some. One that is idle
        # has found nothing left to search.
        return bool(self.idle) or (waited > START if self.begun is None else rest < 0)

    def say(self, event: Event) -> None:
        """Tells of an event."""
        self.go_on &= self.tell(event)

    def ask(self, number: int) -> None:
        """Asks a worker who it is. One that is being started again answers when it is there."""
        asked = self.actors[number].introduce.options(max_task_retries=-1).remote(self.model, self.files)
        self.waiting[asked] = (number, None)

    def give(self, rest: float) -> None:
        """Gives parts to those who have none."""
        while self.idle:
            part = self.plan.next(rest)
            if part is None:
                return
            number = self.idle.pop(0)
            begin = records.to_begin_with(self.log.records, part.kernel.workload)
            self.waiting[self.actors[number].search.remote(part, begin)] = (number, part)
            who = self.introduced[number]
            self.say(Event("begun", number, f"@{part.kernel.name} for {part.seconds:.1f} s", part, who))

    def take(self, reference: Any) -> None:
        """Takes an answer, or notices that there will be none."""
        number, part = self.waiting.pop(reference)
        try:
            answer = ray.get(reference)
        except RayTaskError as e:
            # It is there and cannot work: no room on its disk, for one.
            self.lost(number, part, f"has failed: {e.cause}")
            self.leave_out(number, str(e.cause))
            return
        except RayError as e:
            self.lost(number, part, f"is gone ({type(e).__name__})")
            # One that cannot introduce itself is none that Ray can start again.
            if part is None:
                self.leave_out(number, str(e))
            else:
                self.ask(number)
            return
        if part is None:
            self.join(number, answer)
        else:
            self.arrived(number, part, answer)

    def join(self, number: int, who: Introduction) -> None:
        """A worker is there. It gets parts when its records fit this machine."""
        where = f"{who.node}, process {who.pid}" + (f", cores {','.join(map(str, who.cores))}" if who.cores else "")
        if isinstance(who.place, Place) and (who.place == self.here or self.take_foreign):
            self.introduced[number] = who
            self.idle.append(number)
            fits = "" if who.place == self.here else f"; its records do not fit this machine, they are for {who.place}"
            self.say(Event("joined", number, where + fits, None, who))
        else:
            why = who.place
            if isinstance(why, Place):
                why = (
                    f"{who.node} is {why}, this machine is {self.here}: "
                    "its records would not be applied here (--foreign takes them)"
                )
            self.leave_out(number, why)
        if isinstance(who.place, Place) and who.place != self.here:
            self.outcome.foreign.add(who.place)

    def leave_out(self, number: int, why: str) -> None:
        """A worker is of no use."""
        self.why_not[number] = why
        self.say(Event("left-out", number, why))
        ray.kill(self.actors[number], no_restart=True)

    def arrived(self, number: int, part: Part, result: Result) -> None:
        """A part has come back."""
        who = self.introduced[number]
        if result.failed is not None:
            self.failed(number, part, result.failed)
            return
        self.idle.append(number)
        self.proven.add(number)
        try:
            found = records.parse(result.lines, f"worker {number}")
        except ValueError as e:
            raise Failed(str(e)) from None
        before = records.schedules(self.log.records, part.kernel.workload)
        new = self.log.add(found)
        self.outcome.foreign |= records.foreign(new, self.here)
        candidates = sum(r.kind == "trial" for r in new)
        # What it began with is timed again, and wins again: that is no news.
        faster = len(records.schedules(new, part.kernel.workload) - before)
        self.plan.arrived(part, result.seconds, faster)
        self.outcome.parts += 1
        self.outcome.candidates += candidates
        text = f"@{part.kernel.name}: {candidates} candidates, {faster} new and faster, {result.seconds:.1f} s"
        self.say(Event("arrived", number, text, part, who))

    def failed(self, number: int, part: Part, why: str) -> None:
        """The binary has failed: the kernel's fault where the worker has searched others, else the node's."""
        self.outcome.failed += 1
        again = self.plan.lost(part)
        rest = "" if again else f"; @{part.kernel.name} is left alone"
        text = f"@{part.kernel.name}: {why}{rest}"
        self.say(Event("failed", number, text, part, self.introduced[number]))
        if number in self.proven:
            self.idle.append(number)
        else:
            self.leave_out(number, f"{self.introduced[number].node}: {why}")

    def lost(self, number: int, part: Part | None, why: str) -> None:
        """A worker does not answer. Its part is for whoever is free next."""
        if part is None:
            return
        self.outcome.lost += 1
        again = self.plan.lost(part)
        what = "is searched by another" if again else "has lost too many workers, and is left alone"
        who = self.introduced[number]
        text = f"process {who.pid} on {who.node} {why}; @{part.kernel.name} {what}"
        self.say(Event("lost", number, text, part, who))

"""What is searched next: which kernel, for how long, with which seed.

A kernel is to get its share of the searching time, as in `brolga tune`. What is given out is a *part*: so many
seconds of one kernel, begun with the records of all parts before it. So a kernel of nine tenths of the time is
searched in rounds, and by several workers at once, each with another seed. Whose turn it is, the method of highest
averages says (D'Hondt, 1878): the kernel whose share over the seconds that it would then have is the largest.

    kernels 60 %, 40 %, four seconds a part   -->   60 %, 40 %, 60 %, 40 %, 60 %, …

Nothing here knows of Ray, of processes or of the time of day.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: A kernel with less of the time is not searched, as in `brolga tune`.
SMALL = 0.003
#: Parts that a kernel of all of the time would be searched in, by each worker.
ROUNDS = 8
#: The least seconds of a search.
LEAST = 1.0
#: A part is at least so many times as long as what comes before its search: reading the model, timing its kernels.
WORTH = 3.0
#: The part of its time before which a search that ends has tried what it knows.
EARLY = 0.8
#: Parts of a kernel that may be lost or fail, one after another, before it is left alone: it may be what ends workers.
LOSSES = 3


@dataclass(frozen=True)
class Kernel:
    """A kernel as `brolga tune --list --json` prints it."""

    name: str
    workload: str
    share: float


@dataclass(frozen=True)
class Part:
    """A search: this kernel, so many seconds, with this seed."""

    number: int
    kernel: Kernel
    seconds: float

    @property
    def seed(self) -> int:
        """What the search's chances depend on: no two parts of a run have the same."""
        return self.number


@dataclass
class Account:
    """What a kernel was given."""

    kernel: Kernel
    seconds: float = 0.0
    losses: int = 0
    #: Whether searches of it end before their time.
    dry: bool = False


@dataclass
class Plan:
    """Parts, one after another."""

    kernels: list[Kernel]
    #: Seconds that the search is to take, by the clock.
    seconds: float
    #: Workers that are expected.
    workers: int
    #: Seconds from a part's beginning until it searches.
    start: float = 0.0
    #: Only kernels of these names; those of some weight where there is none.
    only: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        worth = [k for k in self.kernels if k.name in self.only or (not self.only and k.share >= SMALL)]
        # A name may stand twice in a program, a workload too: it is searched once.
        self.accounts = list({k.workload: Account(k) for k in reversed(worth)}.values())[::-1]
        self.numbers = 0

    @property
    def least(self) -> float:
        """The least seconds of a part."""
        return max(LEAST, WORTH * self.start)

    @property
    def longest(self) -> float:
        """The most seconds of a part: a round."""
        return max(self.least, self.seconds / ROUNDS)

    def length(self, kernel: Kernel) -> float:
        """Seconds of a part of a kernel: a round, or all that a small one gets."""
        shares = sum(a.kernel.share for a in self.accounts) or 1.0
        all_of_it = self.seconds * max(self.workers, 1) * kernel.share / shares
        return max(self.least, min(self.longest, all_of_it))

    def next(self, rest: float) -> Part | None:
        """The next part, with so many seconds left by the clock; none without time or a kernel for it."""
        if rest < self.least:
            return None

        def average(a: Account) -> float:
            return a.kernel.share / (a.seconds + self.length(a.kernel))

        open_ = [a for a in self.accounts if not a.dry and a.losses < LOSSES]
        if not open_:
            return None
        account = max(open_, key=average)
        self.numbers += 1
        part = Part(self.numbers, account.kernel, min(self.length(account.kernel), rest))
        account.seconds += part.seconds
        return part

    def arrived(self, part: Part, seconds: float, found: int) -> None:
        """A part's records are there, with so many schedules that are faster and new.

        One that found none and ended well before its time has seen enough: its kernel is done, unless a part that began
        beside it finds some.
        """
        account = self.account(part)
        account.losses = 0
        account.seconds -= max(0.0, part.seconds - seconds)
        if found:
            account.dry = False
        elif seconds < EARLY * part.seconds:
            account.dry = True

    def lost(self, part: Part) -> bool:
        """A part does not come back: its kernel has its turn again. Says whether it will be tried again."""
        account = self.account(part)
        account.losses += 1
        account.seconds -= part.seconds
        return account.losses < LOSSES

    def account(self, part: Part) -> Account:
        """What the kernel of a part was given."""
        return next(a for a in self.accounts if a.kernel.workload == part.kernel.workload)

"""What is searched next."""

from __future__ import annotations

from collections import Counter

import pytest

from brolga_tune.plan import LOSSES, Kernel, Plan


def kernels(*shares: float) -> list[Kernel]:
    return [Kernel(f"k{i}", f"key{i}", s) for i, s in enumerate(shares)]


def parts(plan: Plan, workers: int) -> list[tuple[str, float]]:
    """All parts, when each takes its time and finds something faster."""
    out, clocks = [], [0.0] * workers
    while part := plan.next(plan.seconds - min(clocks)):
        clocks[clocks.index(min(clocks))] += part.seconds
        plan.arrived(part, part.seconds, 1)
        out.append((part.kernel.name, part.seconds))
    return out


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_kernels_get_their_share(workers: int) -> None:
    plan = Plan(kernels(0.9, 0.07, 0.03), 800.0, workers)
    got: Counter[str] = Counter()
    for name, seconds in parts(plan, workers):
        got[name] += seconds  # type: ignore[assignment]
    for kernel in plan.kernels:
        # Up to a part, or two of the largest one.
        part = plan.length(kernel)
        assert abs(got[kernel.name] - kernel.share * 800.0 * workers) <= 2 * part, got


def test_a_large_kernel_is_searched_in_rounds_with_other_seeds() -> None:
    plan = Plan(kernels(0.9, 0.1), 80.0, 2)
    given = [plan.next(80.0) for _ in range(8)]
    assert all(p is not None for p in given)
    large = [p for p in given if p is not None and p.kernel.name == "k0"]
    assert len(large) >= 6 and len({p.seed for p in large}) == len(large)
    assert all(p.seconds == 10.0 for p in large)


def test_kernels_that_take_nothing_are_not_searched_unless_named() -> None:
    small = kernels(0.998, 0.002)
    assert {name for name, _ in parts(Plan(small, 30.0, 1), 1)} == {"k0"}
    assert {name for name, _ in parts(Plan(small, 30.0, 1, only=["k1"]), 1)} == {"k1"}


def test_a_workload_of_two_kernels_is_searched_once() -> None:
    plan = Plan([Kernel("a", "same", 0.5), Kernel("b", "same", 0.5)], 30.0, 1)
    assert {name for name, _ in parts(plan, 1)} == {"a"}


def test_a_kernel_that_has_seen_enough_leaves_its_time_to_others() -> None:
    plan = Plan(kernels(0.9, 0.1), 80.0, 1)
    first = plan.next(80.0)
    assert first is not None and first.kernel.name == "k0"
    plan.arrived(first, 2.0, 0)
    assert {name for name, _ in parts(plan, 1)} == {"k1"}


def test_a_kernel_is_not_done_when_a_part_beside_finds_more() -> None:
    plan = Plan(kernels(1.0), 80.0, 2)
    one, other = plan.next(80.0), plan.next(80.0)
    assert one is not None and other is not None
    plan.arrived(one, 2.0, 0)
    assert plan.next(80.0) is None
    plan.arrived(other, other.seconds, 3)
    assert plan.next(80.0) is not None


def test_a_lost_part_has_its_turn_again_but_not_for_ever() -> None:
    plan = Plan(kernels(1.0), 80.0, 1)
    for n in range(1, LOSSES + 1):
        part = plan.next(80.0)
        assert part is not None
        assert plan.lost(part) == (n < LOSSES)
        assert plan.accounts[0].seconds == 0.0
    assert plan.next(80.0) is None


def test_losses_count_in_a_row() -> None:
    plan = Plan(kernels(1.0), 80.0, 1)
    for _ in range(2 * LOSSES):
        lost, good = plan.next(80.0), plan.next(80.0)
        assert lost is not None and good is not None
        plan.lost(lost)
        plan.arrived(good, good.seconds, 1)


def test_no_part_is_shorter_than_what_comes_before_its_search() -> None:
    plan = Plan(kernels(0.9, 0.1), 60.0, 1, start=5.0)
    assert all(seconds >= 15.0 for _, seconds in parts(plan, 1))
    assert plan.next(14.0) is None

"""Lines of records: read, merged, chosen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brolga_tune.records import Log, Place, Record, finalists, foreign, parse, schedules, to_begin_with

HERE = {"target": "t", "cpu": "c", "threads": 1, "compiler": "brolga 0"}


def trial(schedule: str, incumbent: str, ratio: float, key: str = "k", **place: object) -> str:
    outcome = "faster" if ratio < 1 else "not-faster"
    value = {"trial": key, "schedule": schedule, "incumbent": incumbent, "ratio": ratio, "outcome": outcome}
    return json.dumps(value | HERE | place)


def lines(*all_: str) -> str:
    return "".join(f"{line}\n" for line in all_)


def tried(text: str) -> list[str]:
    return [r.value["schedule"] for r in parse(text, "here") if r.kind == "trial"]


def test_a_line_is_in_the_log_once(tmp_path: Path) -> None:
    path = tmp_path / "a.tune"
    a, b, c = trial("a", "0", 0.9), trial("b", "0", 1.1), trial("c", "0", 1.2)
    log = Log(path)
    assert len(log.add(parse(lines(a, b, a), "one"))) == 2
    assert [r.text for r in log.add(parse(lines(b, c), "two"))] == [c]
    log.close()
    assert path.read_text() == lines(a, b, c)
    again = Log(path)
    assert again.add(parse(lines(c), "three")) == []
    again.close()
    assert path.read_text() == lines(a, b, c)


def test_what_arrives_is_in_the_file_at_once(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.tune")
    log.add(parse(lines(trial("a", "0", 0.9)), "one"))
    assert (tmp_path / "a.tune").read_text() == lines(trial("a", "0", 0.9))
    log.close()


def test_a_log_that_ends_within_a_line_is_continued_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "a.tune"
    a = trial("a", "0", 0.9)
    path.write_text(lines(a) + '{"trial": "k", "sch')
    log = Log(path)
    assert [r.text for r in log.records] == [a]
    log.add(parse(lines(trial("b", "0", 0.8)), "one"))
    log.close()
    assert path.read_text().splitlines()[-1] == trial("b", "0", 0.8)


@pytest.mark.parametrize("line", ["nothing", "[]", '{"a": 1}'])
def test_what_is_no_record_is_refused_with_its_place(line: str) -> None:
    with pytest.raises(ValueError, match="there: line 2 is no record"):
        parse(lines(trial("a", "0", 0.9), line), "there")


def test_the_best_ones_come_first() -> None:
    # b was timed against a: 0.9 * 0.9 of the chosen one's time.
    text = lines(trial("a", "0", 0.9), trial("b", "a", 0.9), trial("c", "0", 0.85), trial("d", "0", 1.3))
    log = parse(text, "here")
    assert tried(to_begin_with(log, "k")) == ["d", "b", "c", "a"]
    assert tried(finalists(log)) == ["b", "c", "a"]


def test_a_search_begins_with_its_own_kernel_and_few_winners() -> None:
    many = [trial(f"s{n}", "0", 0.5 + n / 100) for n in range(40)]
    workload = json.dumps({"workload": "k", "text": "kernel"})
    log = parse(lines(workload, *many, trial("x", "0", 0.1, key="other")), "here")
    begin = to_begin_with(log, "k")
    assert tried(begin) == [f"s{n}" for n in range(8)]
    assert workload in begin


def test_schedules_that_won_are_told_from_news() -> None:
    log = parse(lines(trial("a", "0", 0.9), trial("b", "0", 1.1), trial("c", "0", 0.9, key="other")), "here")
    again = parse(lines(trial("a", "0", 0.8), trial("d", "a", 0.9)), "here")
    assert schedules(again, "k") - schedules(log, "k") == {"d"}


def test_the_line_of_a_model_is_none_of_a_kernel() -> None:
    line = json.dumps({"model": "m", "untuned": 1.0, "ratio": 0.9, "kept": 2} | HERE)
    graph = json.dumps({"graph": "g", "decisions": ['inline "a"'], "program": "p", "ratio": 0.9} | HERE)
    kept = json.dumps({"kept": "k", "schedule": "a"} | HERE)
    log = parse(lines(line, graph, kept), "here")
    assert [(r.kind, r.workload) for r in log] == [("model", None), ("graph", None), ("kept", "k")]
    assert finalists(log) == f"{graph}\n"


def test_records_of_another_machine_are_told_apart() -> None:
    log: list[Record] = parse(lines(trial("a", "0", 0.9), trial("b", "0", 0.9, cpu="z"), '{"workload": "k"}'), "here")
    assert foreign(log, Place("t", "c", "brolga 0")) == {Place("t", "z", "brolga 0")}

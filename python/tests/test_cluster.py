"""The whole command, over Ray: workers that are killed, nodes that are lost or of no use."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from brolga_tune import records
from brolga_tune.cli import main, on_stderr
from brolga_tune.node import Event

#: Two workers that one machine has room for, or nearly.
TWO = ["--workers", "2", "--threads", "1", "--at", "batch=8"]


class Story:
    """What was told; what is done when a part has arrived and another one has begun; when it is enough."""

    def __init__(self, do: Callable[[Event], None], enough: Callable[[Story], bool]) -> None:
        self.events: list[Event] = []
        self.do, self.enough = do, enough
        self.trouble: list[BaseException] = []
        self.thread: threading.Thread | None = None

    def __call__(self, event: Event) -> bool:
        on_stderr(event)
        self.events.append(event)
        if event.kind == "begun" and self.of("arrived") and self.thread is None:
            self.thread = threading.Thread(target=self.act, args=(event,))
            self.thread.start()
        return not self.enough(self)

    def act(self, event: Event) -> None:
        try:
            self.do(event)
        except BaseException as e:
            self.trouble.append(e)

    def of(self, kind: str) -> list[Event]:
        return [e for e in self.events if e.kind == kind]

    def after_loss(self, kind: str) -> list[Event]:
        """What was told after the first loss."""
        at = next((n for n, e in enumerate(self.events) if e.kind == "lost"), len(self.events))
        return [e for e in self.events[at:] if e.kind == kind]

    def end(self) -> None:
        """What was to be done was done."""
        assert self.thread is not None, "no part began after the others"
        self.thread.join()
        assert not self.trouble, self.trouble


def verified(binary: str, log: Path) -> None:
    """The log is one of `brolga tune`, and every schedule that it keeps computes what it should."""
    all_ = records.parse(log.read_text(), str(log))
    assert sum(r.kind == "model" for r in all_) == 1
    assert any(r.kind == "trial" for r in all_)
    done = subprocess.run([binary, "tune", "verify", log], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert " 0 failed, 0 of other machines left out" in done.stdout, done.stdout


def children(pid: int) -> set[int]:
    """The processes that a process has started."""
    tasks = (Path("/proc") / str(pid) / "task").iterdir()
    return {int(c) for t in tasks for c in (t / "children").read_text().split()}


def test_a_killed_worker_costs_its_part(
    binary: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    searching: set[int] = set()

    def kill(event: Event) -> None:
        assert event.introduction is not None
        pid = event.introduction.pid
        until = time.monotonic() + 10.0
        while not searching and time.monotonic() < until:
            searching.update(children(pid))
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)

    def enough(story: Story) -> bool:
        # The worker is there again, and the kernel of its part has been searched.
        lost = story.of("lost")
        if not lost or lost[0].part is None:
            return False
        kernel = lost[0].part.kernel
        again = any(e.worker == lost[0].worker for e in story.after_loss("joined"))
        return again and any(e.part and e.part.kernel == kernel for e in story.of("arrived"))

    story, log = Story(kill, enough), tmp_path / "model.tune"
    status = main([str(model), "-o", str(log), "--brolga", binary, "--budget", "100s", "--json", *TWO], story)
    story.end()
    assert status == 0
    report = json.loads(capsys.readouterr().out)
    (lost,) = story.of("lost")
    assert report["lost"] == 1 and report["parts"] == len(story.of("arrived"))
    # It was started again, as another process.
    assert enough(story)
    (again,) = (e for e in story.after_loss("joined") if e.worker == lost.worker)
    assert lost.introduction and again.introduction and again.introduction.pid != lost.introduction.pid
    # What it was running has ended with it.
    assert searching and not any((Path("/proc") / str(pid) / "cwd").exists() for pid in searching)
    verified(binary, log)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A head that searches nothing, and two nodes of a CPU each."""
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()  # type: ignore[no-untyped-call]


def test_nodes_without_the_binary_are_said(
    cluster: Cluster, binary: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--address", cluster.address, "--brolga", "no-such-brolga", "--brolga-here", binary]
    assert main([str(model), "-o", str(tmp_path / "model.tune"), "--budget", "20s", *where, *TWO]) == 1
    said = capsys.readouterr().err
    assert "error: no worker can search:\nthere is no command `no-such-brolga` on " in said, said


def other_brolga(binary: str, folder: Path, case: str) -> str:
    """A binary that is another one in one case of its first word."""
    path = folder / "brolga"
    path.write_text(f'#!/bin/sh\ncase $1 in\n{case} ;;\n*) exec {binary} "$@" ;;\nesac\n')
    path.chmod(0o755)
    return str(path)


def test_nodes_where_the_binary_fails_are_left_out(
    cluster: Cluster, binary: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = other_brolga(binary, tmp_path, "tune) echo error: no room >&2; exit 1")
    where = ["--address", cluster.address, "--brolga", other, "--brolga-here", binary]
    assert main([str(model), "-o", str(tmp_path / "model.tune"), "--budget", "20s", *where, *TWO]) == 1
    said = capsys.readouterr().err
    assert "error: no worker can search:\n" in said and said.endswith(": error: no room\n"), said


def test_nodes_of_another_cpu_are_left_out(
    cluster: Cluster, binary: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = f"""machine) {binary} "$@" | sed 's/"cpu": ".*"/"cpu": "Another CPU"/'"""
    other = other_brolga(binary, tmp_path, named)
    where = ["--address", cluster.address, "--brolga", other, "--brolga-here", binary]
    assert main([str(model), "-o", str(tmp_path / "model.tune"), "--budget", "20s", *where, *TWO]) == 1
    said = capsys.readouterr().err
    assert " is Another CPU, " in said and "would not be applied here (--foreign takes them)" in said, said


def test_a_lost_node_costs_its_part(
    cluster: Cluster, binary: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = sorted(cluster.worker_nodes, key=lambda n: n.unique_id)

    def enough(story: Story) -> bool:
        # The other one went on.
        lost = story.of("lost")
        return bool(lost) and any(e.worker != lost[0].worker for e in story.after_loss("arrived"))

    story = Story(lambda _: cluster.remove_node(nodes[0], allow_graceful=False), enough)
    log = tmp_path / "model.tune"
    where = ["--address", cluster.address, "--brolga", binary]
    assert main([str(model), "-o", str(log), "--budget", "100s", "--json", *where, *TWO], story) == 0
    story.end()
    report = json.loads(capsys.readouterr().out)
    assert enough(story)
    assert report["lost"] >= 1 and report["parts"] == len(story.of("arrived"))
    verified(binary, log)

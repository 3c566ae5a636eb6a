"""A worker without Ray, with the binary."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from brolga_tune import leash, records
from brolga_tune.binary import Brolga
from brolga_tune.node import Worker
from brolga_tune.plan import Kernel, Part
from brolga_tune.records import Log, Place


def test_two_workers_records_of_one_kernel_merge(binary: str, model: Path, tmp_path: Path) -> None:
    brolga = Brolga(binary, 1, options=("--at", "batch=8"))
    kernel = brolga.kernels(model)[0]
    workers = [Worker(brolga), Worker(brolga)]
    log = Log(tmp_path / "all.tune")
    for seed, worker in enumerate(workers, 1):
        who = worker.introduce(model.name, {model.name: model.read_bytes()})
        assert who.place == brolga.place()
        result = worker.search(Part(seed, kernel, 2.0), records.to_begin_with(log.records, kernel.workload))
        assert result.failed is None, result.failed
        assert log.add(records.parse(result.lines, "a worker"))
    log.close()
    # Each has a core of its own, where there are two.
    cores = [w.brolga.cores for w in workers]
    assert not set(cores[0]) & set(cores[1])
    # The kernel's text once, and what the first one saw lose was not tried by the second one.
    assert {r.workload for r in log.records} == {kernel.workload}
    assert sum(r.kind == "workload" for r in log.records) == 1
    lost = [r.value["schedule"] for r in log.records if r.kind == "trial" and not r.faster]
    assert lost and len(set(lost)) >= 0.8 * len(lost)
    merged = tmp_path / "merged.tune"
    subprocess.run([binary, "tune", "merge", log.path, "-o", merged], check=True)
    assert sorted(merged.read_text().splitlines()) == sorted(log.path.read_text().splitlines())


def test_a_missing_binary_is_said_with_the_way_out(model: Path) -> None:
    why = Worker(Brolga("no-such-brolga", 1)).introduce(model.name, {}).place
    assert not isinstance(why, Place)
    assert "there is no command `no-such-brolga` on " in why and "--brolga" in why


def test_what_the_binary_says_comes_back(binary: str, tmp_path: Path) -> None:
    worker = Worker(Brolga(binary, 1))
    worker.introduce("broken.onnx", {"broken.onnx": b"nothing"})
    result = worker.search(Part(1, Kernel("k", "key", 1.0), 1.0), "")
    assert result.failed is not None and "broken.onnx" in result.failed, result
    assert result.lines == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a command with who started it")
def test_a_command_ends_with_the_worker_that_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "pid"
    script = (
        "import os, subprocess, sys;"
        f"subprocess.run([sys.executable, {leash.__file__!r}, str(os.getpid()), '', 'sh', '-c',"
        f" 'echo $$ > {said}; exec sleep 60'])"
    )
    worker = subprocess.Popen([sys.executable, "-c", script])
    while not (said.exists() and said.read_text().strip()):
        assert worker.poll() is None
        time.sleep(0.02)
    command = Path("/proc") / said.read_text().strip()
    assert command.exists()
    worker.kill()
    worker.wait()
    for _ in range(500):
        # One that has ended may wait for whoever inherits it.
        if not command.exists() or "\nState:\tZ" in (command / "status").read_text():
            return
        time.sleep(0.02)
    raise AssertionError("the command goes on")

"""The command `brolga`, called: on this machine and on nodes."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from . import leash
from .plan import Kernel
from .records import Place

#: Of a budget, what `brolga tune` searches for; the rest is for whole models.
SEARCH = 0.8
#: Seconds that a command may take beyond its budget.
GRACE = 120.0


class Failed(Exception):
    """The binary is missing, or what it was asked for failed. The text is for people."""


@dataclass(frozen=True)
class Brolga:
    """The binary, and the options that every call has."""

    path: str
    threads: int
    #: What code is made for; the machine that it runs on where nothing is said.
    target: str | None = None
    #: Other options of `brolga tune`, such as `--at batch=8`.
    options: tuple[str, ...] = ()
    #: Cores that it runs on; all where there is none.
    cores: tuple[int, ...] = ()
    #: The folder that it runs in.
    folder: Path | None = None

    def found(self) -> str:
        """The binary's whole path. Raises `Failed` where there is none."""
        found = shutil.which(self.path)
        if found is None:
            raise Failed(
                f"there is no command `{self.path}` on {socket.gethostname()}: "
                "install it there, or say with --brolga where it lies on the nodes (PATH there: "
                f"{os.environ.get('PATH', '')})"
            )
        return os.path.abspath(found)

    def call(self, arguments: Sequence[str], seconds: float = GRACE) -> str:
        """What a call prints. Raises `Failed` with what it says, or when it takes too long."""
        cores = ",".join(map(str, self.cores))
        command = [sys.executable, leash.__file__, str(os.getpid()), cores, self.found(), *arguments]
        try:
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            raise Failed(f"`brolga {' '.join(arguments)}` did not end within {seconds:.0f} s") from None
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
            how = f"status {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
            raise Failed("\n".join(said) or f"`brolga {' '.join(arguments)}` ended with {how}")
        return done.stdout

    def place(self) -> Place:
        """This machine, as records name it."""
        machine = json.loads(self.call(["machine", "--show", "--json", *self.target_option()]))["machine"]
        return Place(machine["target"], machine["cpu"], self.call(["--version"]).strip())

    def kernels(self, model: Path) -> list[Kernel]:
        """The kernels of a model, those that take most first."""
        listed = self.call(["tune", str(model), "--list", "--json", *self.tune_options()], 10 * GRACE)
        return [Kernel(k["kernel"], k["workload"], k["share"]) for k in json.loads(listed)]

    def search(self, model: Path, kernel: str, seconds: float, seed: int, begin: Path, output: Path) -> str:
        """Searches one kernel for so many seconds; gives the lines of records."""
        arguments = ["tune", str(model), "-o", str(output), "--kernel", kernel, "--search-only"]
        arguments += ["--budget", f"{seconds / SEARCH:.2f}s", "--seed", str(seed)]
        arguments += ["--from", str(begin), *self.tune_options()]
        self.call(arguments, seconds / SEARCH + GRACE)
        return output.read_text()

    def finish(self, model: Path, output: Path, begin: Path, seconds: float, only: Sequence[str], as_json: bool) -> str:
        """Times the finalists and the whole model here, and writes what is kept; what it notes is seen meanwhile."""
        arguments = ["tune", str(model), "-o", str(output), "--from", str(begin), "--budget", f"{seconds:.2f}s"]
        arguments += [w for name in only for w in ("--kernel", name)]
        arguments += ["--json"] if as_json else []
        command = [self.found(), *arguments, *self.tune_options()]
        with tempfile.TemporaryFile("w+") as printed:
            process = subprocess.Popen(command, stdout=printed)
            while process.poll() is None:
                try:
                    process.wait()
                except KeyboardInterrupt:
                    # The binary has had it too: the first one ends its search, the second one itself.
                    continue
            if process.returncode != 0:
                raise Failed(f"the last step failed, `{' '.join(command)}`; what was found is in {output}")
            printed.seek(0)
            return printed.read()

    def tune_options(self) -> list[str]:
        """Options of every call of `brolga tune`."""
        return ["--threads", str(self.threads), *self.target_option(), *self.options]

    def target_option(self) -> list[str]:
        """What says the target."""
        return [] if self.target is None else ["--target", self.target]

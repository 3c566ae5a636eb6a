"""A command on a leash: it runs on the cores that it is given, and ends when the process that started it does.

A worker that is killed cannot end what it started, and a search that nobody waits for would disturb the times of the
next one. Linux can see to that (`prctl(2)`, `PR_SET_PDEATHSIG`); elsewhere the command ends with its budget. It is a
script that is started for it and becomes the command, since between `fork` and `exec` of a process with threads, such
as Ray's, no Python should run.

    python leash.py PARENT CORES COMMAND ARGUMENT…
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(parent: str, cores: str, *command: str) -> None:
    """Becomes the command. Cores are numbers between commas; nothing for all."""
    if sys.platform == "linux":
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
        # It may have ended before it could be told.
        if os.getppid() != int(parent):
            sys.exit("the worker has ended")
        if cores:
            os.sched_setaffinity(0, {int(c) for c in cores.split(",")})
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])

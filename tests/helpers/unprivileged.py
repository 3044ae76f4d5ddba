"""A Python process for which the modes of files hold, even where tests run as root."""

import json
import os
import subprocess
import sys
from pathlib import Path

import sklearn_difffeat

# Root passes over modes by two capabilities (prctl(2), capabilities(7)).
START = """
import ctypes, os, sys
if os.getuid() == 0:
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""
CHECK = "import os, sys; print(os.access(sys.argv[1], os.W_OK))"


def start(*args):
    root = str(Path(sklearn_difffeat.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", START, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": root},
    )


def run_unprivileged(script, *args):
    """Run a script and return what it prints last, as JSON."""
    process = start("-c", script, *args)
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def writes_everywhere(folder):
    """Whether even such a process passes over modes."""
    path = folder / "probe"
    path.touch(mode=0o444)
    return os.name != "posix" or start("-c", CHECK, path).stdout.strip() != "False"

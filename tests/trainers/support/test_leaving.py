"""The end of a process that is not taken apart."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.process

LEAVES = """
import atexit
from trainers.support.leaving import leave
class Slow:
    def __del__(self):
        print("taken apart")
kept = [Slow()]
kept.append(kept)
atexit.register(print, "registered")
print("said", end=" ")
leave()
"""


def test_a_process_does_what_was_registered_says_all_and_is_not_taken_apart():
    ended = subprocess.run([sys.executable, "-c", LEAVES], capture_output=True, text=True)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "said registered\n", "")

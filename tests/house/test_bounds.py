"""Tests under `nohup`, tests that wait for ever, and tests that leave processes behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
TOOLS = TESTS.parent / "tools"
IGNORING = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run_ignoring(tests: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests as `nohup ... &` in a script does: with SIGINT ignored."""
    command = ["-m", "pytest", "-p", "conftest", "-n0", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        [sys.executable, "-c", IGNORING, *command, str(tests)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS}/support:{TOOLS}"},
    )


def test_an_interrupt_reaches_tests_and_children_where_it_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import multiprocessing, os, signal, subprocess, sys, time
import crash.processes, pytest
from children import in_child

def interrupt_itself(*_):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

def test_itself():
    with pytest.raises(KeyboardInterrupt):
        interrupt_itself()

def test_a_program():
    code = "import os, signal, time; os.kill(os.getpid(), signal.SIGINT); time.sleep(60)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGINT

@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_a_process_of_multiprocessing(method):
    child = multiprocessing.get_context(method).Process(target=interrupt_itself)
    child.start()
    child.join()
    assert child.exitcode == 1

def test_a_child():
    assert "KeyboardInterrupt" in in_child(interrupt_itself).failure

def test_a_child_of_the_fault_injectors():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert "KeyboardInterrupt" in crash.processes.Child(interrupt_itself).wait()[1][-1][2]
    assert "KeyboardInterrupt" in crash.processes.run_apart(interrupt_itself).error
""")
    done = run_ignoring(tmp_path)
    assert (done.returncode, done.stdout.splitlines()[-1].split()[1:3]) == (0, ["7", "passed"]), (
        done.stdout
    )


def test_a_test_that_waits_for_ever_or_leaves_a_process_behind_fails(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("""
import os, signal, subprocess, sys, time
import bounds
bounds.SECONDS, bounds.AGAIN_SECONDS, bounds.GRACE_SECONDS = 2.0, 10.0, 0.1

def test_waits():
    with subprocess.Popen(["sleep", "1000"]) as child:
        child.wait()

def test_leaves():
    child = os.fork()
    if child == 0:
        subprocess.Popen(["sleep", "1001"])
        os._exit(0)
    os.waitpid(child, 0)

def test_is_left_alone():
    subprocess.run(["true"])
""")
    done = run_ignoring(tmp_path, "-rA", "--tb=short")
    words = re.findall(r"^(\w+) \S*::(test_\w+)", done.stdout, re.MULTILINE)
    assert sorted(words) == [
        ("ERROR", "test_leaves"),
        ("ERROR", "test_waits"),
        ("FAILED", "test_waits"),
        ("PASSED", "test_is_left_alone"),
        ("PASSED", "test_leaves"),
    ], done.stdout + done.stderr
    assert "test_it.py:8: in test_waits\n    child.wait()" in done.stdout
    assert "the test did not end within 2 seconds" in done.stdout
    left = re.findall(r"left processes behind: (\d+) \((sleep \d+) \)", done.stdout)
    assert {line for _, line in left} == {"sleep 1000", "sleep 1001"}
    for pid, _ in left:
        assert not Path(f"/proc/{pid}").exists()

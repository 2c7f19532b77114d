"""An interrupt while a process forks: nobody hangs, nothing is lost, and it is raised."""

from __future__ import annotations

from pathlib import Path

from common import run_python

PRELUDE = """
import os, signal, sys, threading, time, warnings
import numpy as np
import numpy.testing
import diskreplay
from diskreplay import forks
from common import columns, numbers_of, row
from inside import store_of
from interrupted import interrupted_at
warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of fork beside threads

came, ignored = [], []
sys.unraisablehook = lambda what: ignored.append(what.exc_type)

def interrupt(*_):
    came.append(threading.current_thread())
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, interrupt)
buffers = [diskreplay.PrioritizedReplayBuffer(100, path=f"{sys.argv[1]}/{i}") for i in range(3)]
for buffer in buffers:
    buffer.extend(**columns(0, 50))
    buffer.flush()

class Slow:
    '''An array that is made when it is told so.'''
    def __init__(self):
        self.is_asked, self.is_told = threading.Event(), threading.Event()
    def __array__(self, dtype=None, copy=None):
        self.is_asked.set()
        assert self.is_told.wait(60)
        return columns(50, 1)["states"]

def extend(buffer, states):
    buffer.extend(**{**columns(50, 1), "states": states})

def child_of(fork):
    '''Fork; in the child, say of each buffer whether it works, in its exit status.'''
    child = fork()
    if child == 0:
        signal.alarm(30)
        status = 0
        for i, buffer in enumerate(buffers):
            try:
                numbers_of(buffer.sample(20))
            except diskreplay.StorageError as error:
                assert "calls could not be kept from it" in str(error), error
                try:
                    diskreplay.open(buffer.path, access="read")
                except diskreplay.LockedError as error:
                    assert "from before a fork in the middle of a call" in str(error)
                buffer.close()
                status |= 1 << i
            except BaseException:
                os._exit(99)
        os._exit(status)
    return child

def status_of(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def settled():
    '''Return when nothing of a fork is left; raise the interrupt that came meanwhile.'''
    with forks._one_at_a_time:
        pass

def all_works():
    for buffer in buffers:
        buffer.check()
        buffer.extend(**columns(buffer.count, 2))
        buffer.flush()
        thread = threading.Thread(target=len, args=(buffer,))
        thread.start()
        thread.join(30)
        assert not thread.is_alive()
    assert status_of(child_of(os.fork)) == 0
    settled()

def in_hook():
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None and frame.f_code.co_filename != forks.__file__:
        frame = frame.f_back
    return frame is not None

def wait_until(condition):
    for _ in range(60_000):
        if condition():
            return
        time.sleep(0.001)
    os._exit(98)
"""


def run(code: str, path: Path, *arguments: object) -> str:
    return run_python(PRELUDE + code, path, *arguments).stdout


def test_an_interrupt_of_a_fork_that_waits_is_raised_after_it(tmp_path: Path) -> None:
    code = """
slow, main = Slow(), threading.main_thread().ident
call = threading.Thread(target=extend, args=(buffers[1], slow))
call.start()
slow.is_asked.wait()

def kick():
    wait_until(in_hook)
    signal.pthread_kill(main, signal.SIGINT)
    wait_until(lambda: came)
    slow.is_told.set()

kicks = threading.Thread(target=kick)
kicks.start()
children = []
try:
    children.append(child_of(os.fork))
    assert len(came) >= 1
    settled()
    time.sleep(30)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("the interrupt was swallowed")
assert len(came) == 2 and not ignored
kicks.join()
call.join()
settled()
for child in children:
    assert status_of(child) == 0
assert len(buffers[1]) == 51
all_works()
"""
    run(code, tmp_path)


def test_a_second_interrupt_ends_the_waiting(tmp_path: Path) -> None:
    code = """
slow, main = Slow(), threading.main_thread().ident
call = threading.Thread(target=extend, args=(buffers[1], slow))
call.start()
slow.is_asked.wait()

def kick():
    wait_until(in_hook)
    for n in (1, 2):
        signal.pthread_kill(main, signal.SIGINT)
        wait_until(lambda: len(came) == n)

kicks = threading.Thread(target=kick)
kicks.start()
try:
    child = child_of(os.fork)
    wait_until(lambda: len(came) == 3)
    time.sleep(30)
except KeyboardInterrupt:
    pass
else:
    raise AssertionError("the interrupt was swallowed")
kicks.join()
assert status_of(child) & 2
assert len(buffers[0]) == 50  # while the call is still under way
slow.is_told.set()
call.join()
assert len(buffers[1]) == 51
all_works()
"""
    run(code, tmp_path)


TRACED = """
library, step = os.path.dirname(diskreplay.__file__), int(sys.argv[2])

def fork_traced(line, *, in_child):
    '''Fork, with an interrupt before the n-th line of our hooks; return whether it came.'''
    parent, passed = os.getpid(), 0

    def trace(frame, event, argument):
        nonlocal passed
        if not frame.f_code.co_filename.startswith(library):
            return None
        if event == "line" and (os.getpid() != parent) == in_child:
            passed += 1
            if passed == line:
                raise KeyboardInterrupt
        return trace

    sys.settrace(trace)
    child = os.fork()
    sys.settrace(None)
    return child, passed >= line
"""


def test_an_interrupt_at_any_line_before_a_fork_is_raised_after_it(
    tmp_path: Path, long: bool
) -> None:
    code = """
line, is_hit = 1, True
while is_hit:
    came.clear(), ignored.clear()
    children = []
    try:
        child, is_hit = fork_traced(line, in_child=False)
        children.append(child_of(lambda: child))
        settled()
        assert not is_hit, line
    except KeyboardInterrupt:
        assert came, line
    for child in children:
        assert status_of(child) == 0, line
    line += step
all_works()
assert line > 50, line
"""
    run(TRACED + code, tmp_path, 1 if long else 4)


def test_an_interrupt_at_any_line_after_a_fork_leaves_the_child_working(
    tmp_path: Path, long: bool
) -> None:
    code = """
def work(is_hit):
    wait_until(lambda: came or ignored or not is_hit)
    for buffer in buffers:
        numbers_of(buffer.sample(20))

line, status = 1, 0
while status == 0:
    child, is_hit = fork_traced(line, in_child=True)
    if child == 0:
        signal.alarm(60)
        while True:
            try:
                work(is_hit)
                os._exit(0 if is_hit else 5)
            except KeyboardInterrupt:
                continue
            except BaseException:
                import traceback
                traceback.print_exc()
                os._exit(9)
    status = status_of(child)
    for buffer in buffers:
        len(buffer)
    line += step
assert status == 5, (line, status)
assert line > 100, line
all_works()
"""
    run(TRACED + code, tmp_path, 1 if long else 9)


def test_signals_at_many_moments_of_forks(tmp_path: Path, long: bool) -> None:
    code = """
signal.signal(signal.SIGALRM, interrupt)
stop = threading.Event()

def draw():
    while not stop.is_set():
        for buffer in buffers:
            numbers_of(buffer.sample(20))

thread = threading.Thread(target=draw)
thread.start()
for trial in range(int(sys.argv[2])):
    came.clear(), ignored.clear()
    children = []
    try:
        signal.setitimer(signal.ITIMER_REAL, 1e-5 + trial * 37 % 100 * 1e-4)
        children.append(child_of(os.fork))
        wait_until(lambda: ignored)  # what comes in the hooks of other libraries, they swallow
    except KeyboardInterrupt:
        pass
    assert came
    try:
        settled()
    except KeyboardInterrupt:
        pass
    for child in children:
        assert status_of(child) in range(8)
stop.set()
thread.join()
all_works()
"""
    run(code, tmp_path, 3000 if long else 30)


def test_a_fork_in_the_middle_of_a_call_of_the_same_thread(tmp_path: Path) -> None:
    code = """
class Forks:
    def __array__(self, dtype=None, copy=None):
        self.child = os.fork()
        return columns(50, 1)["states"]

states = Forks()
try:
    extend(buffers[0], states)
    buffers[0].flush()
except diskreplay.StorageError as error:
    assert states.child == 0, error
    os._exit(3)
assert status_of(states.child) == 3
assert len(buffers[0]) == 51

store = store_of(buffers[0])
for name in ("snapshot", "transaction"):
    child = None
    try:
        with buffers[0]._guard.lock, getattr(store, name)() as view:
            before = view.meta("state")
            if name == "transaction":
                view.put_meta({"note": 1})
            child = os.fork()
            if child:
                assert status_of(child) == 4, name
                assert view.meta("state") == before
                if name == "snapshot":
                    slots = [line.split() for line in store._env.readers().splitlines()[1:]]
                    assert [slot[2] != "-" for slot in slots if slot[0] == str(os.getpid())]
    except diskreplay.StorageError as error:
        assert child == 0 and "forked in the middle of a call" in str(error), error
        os._exit(4)
with store.snapshot() as snapshot:
    assert snapshot.meta("note") == 1
settled()
all_works()
"""
    run(code, tmp_path)

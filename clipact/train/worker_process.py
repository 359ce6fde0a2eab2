"""Processes that decode for a trainer: they leave signals to it, and end when it ends."""

import multiprocessing
import os
import signal
import threading
import time

_CLOSING_SECONDS = 0.5  # for all threads, far more than they need; that of a queue which nobody closed goes on for ever


def prepare_worker(_: int) -> None:
    """Leave Ctrl-C and termination, which reach every process of a group, to the one that trains; end when it ends.

    torch's own watch looks at the parent, which is the fork server and outlives a trainer that was killed.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    trainer = multiprocessing.parent_process()
    assert trainer is not None

    def follow() -> None:
        trainer.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def end_workers() -> None:
    """End at exit what is left of them: they ignore the termination that multiprocessing sends, then waits for."""
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()
    # A thread of a queue that has just been closed is still dropping semaphores. If Python ends in the midst of it, its
    # resource tracker warns of leaks, after our last word.
    ending = time.monotonic() + _CLOSING_SECONDS
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(max(0.0, ending - time.monotonic()))

"""Runs work in forked processes, so that a crash or a hang is the failure of one item.

A worker gets an item's number, answers with its result, and is replaced when it dies or takes too long. Workers are forked
from the process that holds the items: nothing is copied or sent but numbers and results.
"""
import multiprocessing
import signal
import time
from multiprocessing.connection import wait

FORK = multiprocessing.get_context("fork")


class _Worker:
    def __init__(self, work):
        self.pipe, other = FORK.Pipe()
        self.process = FORK.Process(target=_serve, args=(other, work), daemon=True)
        self.process.start()
        other.close()
        self.item, self.start = None, 0.0

    def give(self, item):
        self.item, self.start = item, time.monotonic()
        self.pipe.send(item)

    def end(self):
        """Why the process is gone, in words."""
        self.process.join(5)
        code = self.process.exitcode
        return f"crashed: {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"

    def stop(self):
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe, work):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            item = pipe.recv()
        except EOFError:
            return
        pipe.send(work(item))


def run_isolated(n_items, work, jobs, seconds):
    """Yields (item, result, fault, time) for items 0 .. n_items - 1 in the order they end. work(item) gives a result that can
    be pickled and does not raise; fault is a text when the process died or took longer than `seconds`."""
    left = iter(range(n_items))
    workers = [_Worker(work) for _ in range(min(jobs, n_items))]
    busy = {}
    try:
        for worker in workers:
            worker.give(next(left))
            busy[worker.pipe] = worker
        while busy:
            ready = wait(list(busy), timeout=1)
            late = [p for p, w in busy.items() if p not in ready and time.monotonic() - w.start > seconds]
            for pipe in [*ready, *late]:
                worker = busy.pop(pipe)
                item, passed = worker.item, time.monotonic() - worker.start
                result, fault = _answer(worker, pipe in late, seconds)
                if fault:
                    worker.stop()
                    workers.remove(worker)
                    worker = _Worker(work)
                    workers.append(worker)
                yield item, result, fault, passed
                following = next(left, None)
                if following is not None:
                    worker.give(following)
                    busy[worker.pipe] = worker
    finally:
        for worker in workers:
            worker.stop()


def _answer(worker, late, seconds):
    if late:
        return None, f"no end within {seconds} s"
    try:
        return worker.pipe.recv(), None
    except (EOFError, ConnectionResetError):
        return None, worker.end()

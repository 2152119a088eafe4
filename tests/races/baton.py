"""Several verbs at once, in threads of which one runs at a time: draws decide which goes on.

A verb hands the baton on wherever it calls ``point``, and where it has to wait for a lock. The same
draws always give the same order, so an interleaving can be played again.
"""

from __future__ import annotations

import threading

TURNS_WITHOUT_PROGRESS_MAX = 100


class KilledError(BaseException):
    """The process of this verb was killed."""


class Task:
    """A verb that is under way.

    Args:
        owner: The process that does it.
        verb: What it does.
    """

    def __init__(self, owner, verb):
        self.owner = owner
        self.verb = verb
        self.thread = None
        self.is_killed = False
        self.error = None


class Worker:
    """A thread that does one task after another, each time it is given the baton."""

    def __init__(self, baton):
        self.turn = threading.Lock()
        self.turn.acquire()
        self.task = None
        threading.Thread(target=self._run, args=(baton,), daemon=True).start()

    def _run(self, baton):
        while True:
            self.turn.acquire()
            task = self.task
            if task is None:
                return
            try:
                if not task.is_killed:
                    task.verb()
            except KilledError:
                pass
            except BaseException as error:  # noqa: BLE001 - raised by ``run``
                task.error = error
            baton.end(task)


class Baton:
    """Whose turn it is. Also the lock of the store: whoever waits for it lets others go on.

    Attributes:
        task: The task that runs; None while only the world itself does.
        switches: How often one task went on after another.
    """

    def __init__(self):
        self.task = None
        self.switches = 0
        self._tasks = []
        self._workers = []
        self._main = threading.Lock()
        self._main.acquire()
        self._draws = self._stuck = 0

    def run(self, tasks, draws):
        """Do these tasks at once.

        Args:
            tasks: The tasks.
            draws: A number that decides the order.

        Raises:
            BaseException: What the first task to fail has raised.
        """
        while len(self._workers) < len(tasks):
            self._workers.append(Worker(self))
        for task, worker in zip(tasks, self._workers, strict=False):
            task.thread, worker.task = worker, task
        self._tasks = list(tasks)
        self._draws, self._stuck = draws, 0
        self._give(self._drawn(self._tasks))
        self._main.acquire()
        for task in tasks:
            if task.error is not None:
                raise task.error

    def kill(self, owner):
        """End the tasks of a process wherever they are, but not the one that runs."""
        for task in self._tasks:
            if task.owner is owner and task is not self.task:
                task.is_killed = True

    def point(self):
        """The task that runs may be interrupted here."""
        if self.task is not None:
            self._stuck = 0
            self._hand_on(self._tasks)

    def end(self, task):
        """A task is over."""
        self._tasks.remove(task)
        self._stuck = 0
        if task.error is not None:
            for other in self._tasks:
                other.is_killed = True
        if self._tasks:
            self._give(self._drawn(self._tasks))
        else:
            self.task = None
            self._main.release()

    def close(self):
        """End the threads."""
        for worker in self._workers:
            worker.task = None
            worker.turn.release()

    def _hand_on(self, tasks):
        mine, found = self.task, self._drawn(tasks)
        if found is not mine:
            self._give(found)
            mine.thread.turn.acquire()
        if mine.is_killed:
            raise KilledError

    def _give(self, task):
        self.switches += 1
        self.task = task
        task.thread.turn.release()

    def _drawn(self, tasks):
        self._draws = (self._draws * 6364136223846793005 + 1442695040888963407) % 2**64
        return tasks[(self._draws >> 33) % len(tasks)]

    # ---- as a lock ---------------------------------------------------------------------------

    def __enter__(self):
        """Nobody else runs."""

    def __exit__(self, *error):
        """Nobody else ran."""

    def wait(self):
        """Let others go on, one of which has to give back a lock."""
        others = [task for task in self._tasks if task is not self.task]
        self._stuck += 1
        assert others, "a lock is never given back"
        assert self._stuck < TURNS_WITHOUT_PROGRESS_MAX, "a deadlock: all wait for locks"
        self._hand_on(others)

    def notify_all(self):
        """A lock was given back."""
        self._stuck = 0


class SharedLock:
    """A lock for the tasks of one process."""

    def __init__(self, baton):
        self._baton = baton
        self._is_taken = False

    def __enter__(self):
        while self._is_taken:
            self._baton.wait()
        self._is_taken = True

    def __exit__(self, *error):
        self._is_taken = False
        self._baton.notify_all()

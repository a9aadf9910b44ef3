"""Work done ahead by processes, with results in order: torch's DataLoader, and recovery when a file kills a worker.

A broken video can crash its decoder or hang it forever. The pending items are then redone one by one, each in its own
process under a time limit, to identify the culprit; then the workers restart.
"""

from __future__ import annotations

import logging
import multiprocessing
import signal
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

import av
from torch.utils.data import DataLoader, Dataset

from evatok.data.probe import VideoError
from evatok.data.video import START_LIMIT, ClipReader

Item = TypeVar("Item")
Result = TypeVar("Result")

LIMIT = 60.0
"""Seconds without a result after which the next item counts as hanging."""

_FAULTS = ("DataLoader worker", "DataLoader timed out")  # how torch's messages about a dead or hanging worker start
_log = logging.getLogger(__name__)


class Work(ABC, Generic[Item, Result]):
    """What is done with an item; pickled once to every worker. No file may make it raise."""

    @abstractmethod
    def __call__(self, item: Item) -> Result:
        """Process one item."""

    @abstractmethod
    def path(self, item: Item) -> str:
        """Return an item's file, for messages."""

    @abstractmethod
    def failed(self, item: Item, reason: str) -> Result:
        """Return the result of an item that crashes or hangs its process."""


def in_order(
    work: Work[Item, Result], items: Iterable[Item], workers: int, *, ahead: int, limit: float = LIMIT
) -> Iterator[Result]:
    """Yield the result of each item in order, while `workers` processes are up to `ahead` items ahead.

    `items` may be endless; they are drawn in this process. With no workers each is done in the one process of a
    `ClipReader`. Scripts must call this from under `if __name__ == "__main__":`.
    """
    pending: deque[Item] = deque()  # submitted, without a result yet
    source = iter(items)
    with ClipReader() as reader:
        while workers:
            loader = _loader(work, _noted(source, pending), workers, ahead, limit)
            try:
                for result in loader:
                    pending.popleft()
                    yield result
                return
            except RuntimeError as error:
                if not str(error).startswith(_FAULTS):
                    raise
                _log.warning("%s: the files under way are read one by one", str(error).partition("\n")[0])
            del loader
            while pending:
                yield _alone(work, pending.popleft(), reader, limit)
        for item in source:
            yield _alone(work, item, reader, limit)


def _noted(source: Iterator[Item], pending: deque[Item]) -> Iterator[Item]:
    for item in source:
        pending.append(item)
        yield item


def _alone(work: Work[Item, Result], item: Item, reader: ClipReader, limit: float) -> Result:
    try:
        if reader.process_id is None:  # the time it takes to import the work does not count
            reader.call(partial(_known, work), work.path(item), START_LIMIT)
        return reader.call(partial(work, item), work.path(item), limit)
    except VideoError as error:
        return work.failed(item, error.reason)


def _loader(work: Work[Any, Any], items: Iterator[Any], workers: int, ahead: int, limit: float) -> Iterator[Any]:
    # Forking after torch started its threads can deadlock, and spawning imports torch again in every worker.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    previous = signal.getsignal(signal.SIGCHLD)
    loader = iter(
        DataLoader(
            _Works(work),
            batch_size=None,
            sampler=_Once(items),
            num_workers=workers,
            collate_fn=_as_it_is,
            worker_init_fn=_begin,
            prefetch_factor=max(2, -(-ahead // workers)),
            timeout=limit,
            multiprocessing_context=context,
        )
    )
    # torch has a worker's death raised wherever the main thread happens to be; it is also told where results are taken.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL if previous is None else previous)
    return loader


class _Works(Dataset[Any]):
    """Work, indexed the way torch does."""

    def __init__(self, work: Work[Any, Any]) -> None:
        self.work = work

    def __getitem__(self, item: Any) -> Any:
        return self.work(item)


class _Once:
    """Items as a torch sampler: iterable, and without a length."""

    def __init__(self, items: Iterator[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return self.items


def _known(work: Work[Any, Any]) -> None:
    pass


def _as_it_is(result: Result) -> Result:
    return result


def _begin(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the process group; the parent ends this process
    av.logging.set_level(None)

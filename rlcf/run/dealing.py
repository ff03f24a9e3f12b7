"""Which samples are left to do, and how the processes of a run share them: a small portion whenever one asks."""

from collections.abc import Iterator, Sequence

import numpy as np


def shuffled(size: int, seed: int, limit: int | None) -> list[int]:
    """The order in which samples are visited: a permutation that the seed decides, cut to `limit`."""
    return np.random.default_rng(seed).permutation(size)[:limit].tolist()


def left_to_do(order: Sequence[int], done: np.ndarray, at_once: int) -> tuple[np.ndarray, np.ndarray]:
    """The samples of the groups that lack a record, in their order, and those of them that have one nevertheless.

    done: (number of samples,) True for a sample with a record; at_once: samples of a group. A group is of the samples
    that stand together in the order, and only the order's last one may be smaller: the samples that are left fall into
    their groups again when they are cut every `at_once`.
    """
    samples = np.asarray(order, dtype=np.int64)
    has = done[samples]
    padded = np.pad(has, (0, -len(has) % at_once), constant_values=True).reshape(-1, at_once)
    left = np.repeat(~padded.all(axis=1), at_once)[: len(has)]
    return samples[left], samples[left & has]


class Dealt:
    """The samples that are left, as one process gets them: portion by portion, when it asks for the next.

    Each portion goes to one process alone. A process that is slow asks less often, and does not hold the others.
    It can be iterated over once, by sample or by `portions`.
    left: the samples that are left to all processes, in their order; portion: samples of one; numbers: of the portions
    that this process gets, as from `Shard.numbers`.
    others: samples that other processes have got so far, as far as this one knows.
    """

    def __init__(self, left: Sequence[int] | np.ndarray, portion: int, numbers: Iterator[int]) -> None:
        self.left, self.size, self.numbers = np.asarray(left, dtype=np.int64), portion, numbers
        self.others = self._own = 0

    def __len__(self) -> int:
        """Number of samples that were left to all processes."""
        return len(self.left)

    def __iter__(self) -> Iterator[int]:
        return (index for portion in self.portions() for index in portion)

    def portions(self) -> Iterator[list[int]]:
        for number in self.numbers:
            start = min(number * self.size, len(self.left))
            self.others = start - self._own
            portion = self.left[start : start + self.size].tolist()
            if not portion:
                return
            self._own += len(portion)
            yield portion

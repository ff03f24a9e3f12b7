"""Episodes that end early: a sample has settled when a step samples what the step before did, all rewarded alike."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from rlcf.adapt.objectives import Step
from rlcf.adapt.rewards import LEFT_OUT


class Settling:
    """Tells which of the N samples of an episode have settled, and holds them as they are while the others go on.

    A sample has settled after its second step or a later one if that step's likeliest and sampled answers were those of
    the step before, and none of its advantages was as far from 0 as the bound.

    bound: of the advantages; with 0 nothing is watched and all steps are taken; steps: of a whole episode; own: from a
    sample's place to all tensors that it alone changes, views of the parameters and buffers; idle: True for each sample
    that takes no step.
    after: of each sample the number of steps after which its episode ended early, 0 for an idle one, else None.
    """

    def __init__(
        self, bound: float, steps: int, own: Callable[[int], Sequence[Tensor]], idle: Sequence[bool] = (False,)
    ) -> None:
        self.bound, self.steps, self.own = bound, steps, own
        self.after: list[int | None] = [0 if one else None for one in idle]
        self._seen = 0
        self._known: Tensor | None = None  # the answers of the step that was seen last
        self._settled: Tensor | None = None  # (N,), by that step
        self._held: dict[int, list[Tensor]] = {}

    @torch.no_grad()
    def see(self, likeliest: Tensor, step: Step) -> None:
        """Take note of a step. Nothing is read off the device.

        likeliest: (N, V) answers; step: with sampled answers, (N, V, K) numbers in any order, and their advantages.
        """
        if not self.bound:
            return
        assert step.advantages is not None
        answers = torch.cat([likeliest.unsqueeze(-1), step.answers.sort(dim=-1).values], dim=-1).flatten(1)
        if self._known is not None:
            sizes = torch.where(step.advantages == LEFT_OUT, 0, step.advantages).abs().flatten(1)
            self._settled = (answers == self._known).all(dim=-1) & (sizes < self.bound).all(dim=-1)
        self._known, self._seen = answers, self._seen + 1

    def over(self) -> bool:
        """True if every sample has settled, called when the parameters have taken the step that was seen.

        Samples that have settled while others have not are held as they are now. A GPU is waited for once.
        """
        if self._settled is None or self._seen >= self.steps:
            return False
        settled = read(self._settled)
        new = [i for i, known in enumerate(self.after) if known is None and settled[i]]
        for i in new:
            self.after[i] = self._seen
        if None not in self.after:
            return True
        self._held |= {i: [tensor.clone() for tensor in self.own(i)] for i in new}
        return False

    @torch.no_grad()
    def put_back(self) -> None:
        """Give the samples that are held the values that they were held with: they answer with those."""
        for i, values in self._held.items():
            for tensor, value in zip(self.own(i), values, strict=True):
                tensor.copy_(value)


def read(flags: Tensor) -> list[bool]:
    """The values of flags, (N,). A GPU is waited for."""
    return [bool(flag) for flag in flags.tolist()]

"""Captioning images with a captioner that adapts to each: the walk of a group of images to their captions."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor

from caption.clip_model import MapperPolicy
from caption.config import CaptionConfig
from caption.language_model import LanguageModel, load_language_model
from caption.mapper import Mapper, read_checkpoint
from caption.objectives import OBJECTIVES, Sampled
from caption.reward import Rewards
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import GroupGivenUp, side_by_side
from rlcf.adapt.objectives import Step
from rlcf.adapt.rewards import Seen
from rlcf.adapt.settled import Settling
from rlcf.adapt.trace import TracedStep, traced
from rlcf.adapt.views import PlannedViews, Views
from rlcf.digests import digest_of_tensors
from rlcf.errors import UserError, flags_as_settings
from rlcf.inputs.images import as_image
from rlcf.run.setup import Models, Setup, reward_weights


@dataclass(frozen=True)
class CaptionModels(Models):
    """All that a captioner is made of. trained_with: the CLIP that the mapper was trained with, where it is known."""

    mapper: Mapper
    lm: LanguageModel
    trained_with: str = ""

    @cached_property
    def digests(self) -> dict[str, str]:
        """A digest of each model, by what an error calls it."""
        own = {"weights of the captioner": self.mapper, "weights of the language model": self.lm.model}
        return {**super().digests, **{name: digest_of_tensors(model.state_dict()) for name, model in own.items()}}


@dataclass(frozen=True)
class Answer:
    """An image's captions before and after its episode.

    rewards: the reward models' mean scores of the two, None for a method that asks none, for a caption that they leave
    out and for a score that is not finite; trace: the episode's steps, whose answers are the captions that were
    sampled; finite: False for an episode that was given up, whose adapted caption is the zero-shot one; settled: True
    for one that ended early, None for one that could not.
    """

    zero_shot: str
    adapted: str
    zero_shot_reward: float | None = None
    adapted_reward: float | None = None
    trace: list[TracedStep] = field(default_factory=list)
    finite: bool = True
    settled: bool | None = None


class Captioner:
    """Captions images with a captioner that adapts to each one.

    settings: those of `CaptionConfig`, with its defaults and checks: checkpoint, language_model, student, reward,
    method, lr, ... Raises UserError for a setting that is wrong, and as `load_caption_models`.

        captioner = Captioner(checkpoint="demo-clipcap", language_model="demo-lm", student="demo-student", lr=1e-4)
        print(captioner("photo.jpg").adapted)
    """

    def __init__(self, **settings: object) -> None:
        with flags_as_settings():
            setup = Setup.of_settings(CaptionConfig, settings)
            self._set_up(setup.config, load_caption_models(setup))

    @classmethod
    def of(cls, config: CaptionConfig, models: CaptionModels) -> "Captioner":
        """A captioner of settings and models that are there already."""
        captioner = cls.__new__(cls)
        captioner._set_up(config, models)
        return captioner

    def _set_up(self, config: CaptionConfig, models: CaptionModels) -> None:
        student, adapts = models.student, config.how.adapts
        self.config, self.models = config, models
        self.views = Views(student.centre_view, student.size, count=1)
        places = config.images_at_once if adapts else 1
        self.policy = MapperPolicy(student, models.mapper, models.lm, models.trained_with, places)
        self.rewards: Rewards | None = None
        if models.rewards:
            weights = reward_weights(config, len(models.rewards))
            self.rewards = Rewards(models.rewards, weights, config.clipscore_weight)
        self.episodes: Episodes | None = None
        if adapts:
            self.episodes = Episodes.from_config(config, self.policy.tuned, self.policy.buffers, student.precision)

    def __call__(self, image: "PIL.Image.Image | str | Path | Tensor", index: int = 0) -> Answer:
        """The captions of one image.

        image: a PIL image, a file, or a tensor (3, H, W), uint8 or float in [0, 1]. index: the image's number, which
        with the seed decides what is drawn from the nucleus. Raises UserError for a file that cannot be read.
        """
        with flags_as_settings():
            view = self.views(as_image(image), index)
            return side_by_side([(index, view)], self.adapt)[0]

    @property
    def memory(self) -> Episodes | None:
        """State that the method carries from image to image; None where there is none."""
        return self.episodes if self.config.momentum else None

    def adapt(self, group: Sequence[tuple[int, Tensor | PlannedViews]]) -> list[Answer]:
        """Each image's captions before and after its episode.

        group: (index, view) of up to `config.images_at_once` images; the view is (1, 3, H, W), the centre crop. Raises
        GroupGivenUp when one of several images is given up, or when their fp16 gradients overflow, which alone would
        cost it a step; and UserError for a prefix that is not finite before any step.
        """
        indices = [index for index, _ in group]
        views = [view for _, view in group if isinstance(view, Tensor)]  # all are: a single view is never planned
        stacked = torch.cat(views) if len(views) > 1 else views[0]  # without a copy, which would not be pinned
        features = self.policy.encode(stacked)
        before = self.policy.zero_shot(features)
        if not before.isfinite().all():
            raise UserError("the captioner's prefix is not finite; use --precision fp32")
        seen = self.rewards.see(stacked) if self.rewards else None
        after: Tensor | None = before
        steps: list[Step] = []
        ended: Sequence[int | None] = [None] * len(group)
        if self.episodes is not None:
            after, steps, ended = self._learn(self.episodes, indices, features, before, seen)
            if after is None and len(group) > 1:
                raise GroupGivenUp
            prefixes = torch.stack([before, before if after is None else after], dim=1)
            captions = self._caption(prefixes.flatten(0, 1))  # the language model makes a token of all in one go
            pairs = [captions[i : i + 2] for i in range(0, len(captions), 2)]
        else:
            first = self._caption(before)
            last = self._rerank(before, indices, seen) if self.config.how.reranks and seen else first
            pairs = [[old, new] for old, new in zip(first, last, strict=True)]
        rewards = seen.scores(pairs).tolist() if seen else [[None, None] for _ in pairs]
        return [
            Answer(
                old,
                new,
                _score(scores[0]),
                _score(scores[1]),
                traced(steps[: ended[i]], i),
                finite=after is not None,
                settled=ended[i] is not None if self.config.stop_when_settled else None,
            )
            for i, ((old, new), scores) in enumerate(zip(pairs, rewards, strict=True))
        ]

    def _learn(
        self, episodes: Episodes, indices: Sequence[int], features: Tensor, before: Tensor, seen: Seen | None
    ) -> tuple[Tensor | None, list[Step], Sequence[int | None]]:
        """The episode of N images. features: (N, D); before: (N, P, width), their prefix before it.

        Returns the adapted prefix, (N, P, width), the steps, and of each image the number of steps after which it had
        settled, None where it took all. The language model is frozen: the adapted prefix is all that the final captions
        need.
        """
        config, steps = self.config, list[Step]()
        settling = Settling(config.stop_when_settled, config.steps, self.policy.own, [False] * len(indices))
        drawn: list[list[list[str]]] = []  # the captions that each step samples
        numbers: dict[str, int] = {}  # of all captions that were drawn

        def loss(number: int) -> Tensor:
            prefix = policy.prefix(features)
            if not prefix.isfinite().all():
                return prefix.sum()
            texts = self._sample(prefix, indices, number)
            drawn.append(texts)
            if config.candidates == "both" and number > 0:
                texts = [own + first for own, first in zip(texts, drawn[0], strict=True)]
            step = objective(config, self._weigh(texts, prefix, before), seen)
            steps.append(step._replace(loss=step.loss.detach()))
            if config.stop_when_settled:
                rows = [[numbers.setdefault(text, len(numbers)) for text in captions] for captions in drawn[-1]]
                sampled = torch.tensor(rows, device=prefix.device)[:, None]  # (N, 1, K), the likeliest first
                settling.see(sampled[..., 0], step._replace(answers=sampled))
            return step.loss.sum()

        def answer() -> Tensor:
            settling.put_back()
            return policy.answer(features)

        objective = OBJECTIVES[config.method]
        with self.policy as policy:
            after = episodes.run(loss, answer, skip_overflow=len(indices) == 1, over=settling.over)
        return after, steps, settling.after

    def _sample(self, prefix: Tensor, indices: Sequence[int], number: int) -> list[list[str]]:
        """K captions of each of N images. prefix: (N, P, width); number: of the step, which decides the draws."""
        config = self.config
        top_p = config.top_p if config.sampling == "nucleus" else None
        seeds = [(config.seed, index, number) for index in indices]
        return self.policy.sample(prefix, config.sample_k, top_p, seeds, config.max_new_tokens)

    def _rerank(self, prefix: Tensor, indices: Sequence[int], seen: Seen) -> list[str]:
        """The best rewarded of K captions of each of N images, lower case. prefix: (N, P, width)."""
        texts = self._sample(prefix, indices, 0)
        best = seen.scores(texts).argmax(dim=-1).tolist()
        return [captions[place].lower() for captions, place in zip(texts, best, strict=True)]

    def _weigh(self, texts: list[list[str]], prefix: Tensor, before: Tensor) -> Sampled:
        """The captions of N images, weighed. prefix, before: (N, P, width), now and before the episode."""
        config, policy = self.config, self.policy
        now, tokens = policy.log_likelihood(prefix, texts, config.score_padding)
        k = config.sample_k  # those behind them joined
        rows = [[i >= k and text in own[:i] for i, text in enumerate(own)] for own in texts]
        repeated = torch.tensor(rows, device=now.device)
        if not config.kl_weight:
            return Sampled(texts, now, tokens, repeated)
        with torch.no_grad():
            return Sampled(texts, now, tokens, repeated, policy.log_likelihood(before, texts, config.score_padding)[0])

    def _caption(self, prefix: Tensor) -> list[str]:
        """The final captions. prefix: (N, P, width)."""
        return self.policy.caption(prefix, self.config.beams, self.config.max_new_tokens)


def _score(reward: float | None) -> float | None:
    return reward if reward is not None and math.isfinite(reward) else None


def load_caption_models(setup: Setup[CaptionConfig]) -> CaptionModels:
    """The student, its mapper and language model, and the reward models that a method needs.

    Raises UserError as `load_models`, `read_checkpoint` and `load_language_model`.
    """
    checkpoint, device = read_checkpoint(setup.config.checkpoint), setup.device
    lm = load_language_model(setup.config.language_model, device, setup.precision, checkpoint.language_model)
    mapper = checkpoint.build_mapper(lm.width).to(device)
    models = setup.load_models()
    trained_with = str(checkpoint.described.get("student", ""))
    return CaptionModels(models.student, models.rewards, mapper, lm, trained_with)

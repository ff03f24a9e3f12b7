"""Ranking a gallery with a CLIP that adapts to each query: the walk of a query from its features to its answer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from torch import Tensor

from retrieval.clip_model import ImagePolicy, Policy, TextPolicy
from retrieval.config import RetrievalConfig
from retrieval.datasets import clean_text
from retrieval.objectives import OBJECTIVES
from retrieval.reward import Query, Rewards, reward_clips
from rlcf.adapt.episode import Episodes, all_finite
from rlcf.adapt.objectives import Step, agree, combine, kl_divergence
from rlcf.adapt.rewards import Seen
from rlcf.adapt.settled import Settling
from rlcf.adapt.trace import Outcome, TracedStep, traced
from rlcf.adapt.views import Views
from rlcf.clip.backbone import Backbone
from rlcf.errors import UserError, flags_as_settings
from rlcf.inputs.images import as_image
from rlcf.metrics import top_indices
from rlcf.run.setup import Models, Setup, as_texts, reward_weights

Picture = PIL.Image.Image | str | Path | Tensor
"""A PIL image, a file, or a tensor (3, H, W), uint8 or float in [0, 1]."""
Label = str | int
"""A text, the path of an image, or the number of one without a path."""
IMAGE_BATCH = 64


@dataclass(frozen=True)
class Answer:
    """A query's answer.

    labels: of the G places in the gallery; zero_shot, adapted: (G,) their probabilities before and after the episode;
    zero_shot_ranking, ranking: all places, best first; trace: the episode's steps, whose answers are places; finite:
    False for an episode that was given up, whose adapted answer is the zero-shot one.
    """

    labels: list[Label]
    zero_shot: Tensor
    adapted: Tensor
    zero_shot_ranking: list[int]
    ranking: list[int]
    trace: list[TracedStep]
    finite: bool = True

    @property
    def label(self) -> Label:
        """The first in the ranking after the episode."""
        return self.labels[self.ranking[0]]

    @property
    def zero_shot_label(self) -> Label:
        """The first in the ranking before it."""
        return self.labels[self.zero_shot_ranking[0]]


class Retriever:
    """Ranks a gallery with a CLIP that adapts to each query.

    texts: a gallery that images look for, or images: one that texts look for; one of the two. A text longer than the
    models' context is cut. settings: those of `RetrievalConfig`, with its defaults and checks: student, reward, method,
    tune, lr, ... Raises UserError for a setting that is wrong, an image that cannot be read, and as `load_models`.

        retriever = Retriever(texts=["two dogs on a beach", "a red car"], student="ViT-B/16", reward=["ViT-L/14"],
                              sample_k=2)
        print(retriever("photo.jpg").label)
    """

    def __init__(
        self, texts: Sequence[str] | None = None, images: Sequence[Picture] | None = None, **settings: object
    ) -> None:
        with flags_as_settings():
            if (texts is None) == (images is None):
                raise UserError("a Retriever has one gallery; give it texts or images")
            if "direction" in settings:
                raise UserError("direction follows from the gallery; give the Retriever texts or images without it")
            if isinstance(images, str | Path | PIL.Image.Image):
                raise UserError("images must be a list of images, not one alone")
            texts = None if texts is None else as_texts(texts, "texts")
            direction, size = ("i2t", len(texts)) if texts is not None else ("t2i", len(images or ()))
            setup = Setup.of_settings(RetrievalConfig, {**settings, "direction": direction})
            (config,) = setup.config.one_way
            config.check_gallery(size, "the gallery")
            models = setup.load_models()
            if texts is not None:
                self._hold_texts(config, models, texts)
            else:
                self._hold_images(config, models, images or ())

    @classmethod
    def of(
        cls, config: RetrievalConfig, models: Models, gallery: Tensor, rewards: Rewards | None, labels: Sequence[Label]
    ) -> "Retriever":
        """A retriever of one direction's settings, and of models and features that are there already.

        gallery: (G, D) features by the student, unit length; labels: G.
        """
        retriever = cls.__new__(cls)
        retriever._set_up(config, models, gallery, rewards, labels)
        return retriever

    def _hold_texts(self, config: RetrievalConfig, models: Models, texts: Sequence[str]) -> None:
        encoded, clips = [as_encoded(config, text) for text in texts], reward_clips(models)
        seen = {i: clip.encode_text(encoded) for i, clip in clips.items()}
        rewards = make_rewards(config, models, seen, encoded)
        self._set_up(config, models, models.student.encode_text(encoded), rewards, texts)

    def _hold_images(self, config: RetrievalConfig, models: Models, images: Sequence[Picture]) -> None:
        views, clips = torch.cat([evaluation_view(models.student, image) for image in images]), reward_clips(models)
        seen = {i: encode_views(clip, views) for i, clip in clips.items()}
        rewards = make_rewards(config, models, seen)
        labels = [str(image) if isinstance(image, str | Path) else place for place, image in enumerate(images)]
        self._set_up(config, models, encode_views(models.student, views), rewards, labels)

    def _set_up(
        self, config: RetrievalConfig, models: Models, gallery: Tensor, rewards: Rewards | None, labels: Sequence[Label]
    ) -> None:
        self.config, self.models, self.rewards, self.labels = config, models, rewards, list(labels)
        self.policy = make_policy(config, models.student, gallery)
        self.episodes: Episodes | None = None
        if config.how.adapts:
            self.episodes = Episodes.from_config(config, self.policy.tuned, {}, models.student.precision)

    def __call__(self, query: Picture) -> Answer:
        """The answer to one query.

        query: an image where the gallery is of texts: a PIL image, a file, or a tensor (3, H, W), uint8 or float in
        [0, 1]; a text where it is of images. Raises UserError for another query, and for a file that cannot be read.
        """
        with flags_as_settings():
            (outcome,) = self.adapt([(0, self._see(query))])
        size = len(self.labels)
        return Answer(
            self.labels,
            outcome.before.softmax(dim=-1),
            outcome.answer.softmax(dim=-1),
            top_indices(outcome.before, size),
            top_indices(outcome.answer, size),
            outcome.trace,
            finite=outcome.after is not None,
        )

    def _see(self, query: Picture) -> Query:
        clips = reward_clips(self.models)
        if self.config.direction == "i2t":
            view = evaluation_view(self.models.student, query)
            return Query(view, {i: encode_views(clip, view)[0] for i, clip in clips.items()})
        if not isinstance(query, str):
            raise UserError(f"a text looks for one of the images, not an object of type {type(query).__name__}")
        text = as_encoded(self.config, query)
        return Query(text, {i: clip.encode_text([text])[0] for i, clip in clips.items()})

    def adapt(self, group: Sequence[tuple[int, Query]]) -> list[Outcome]:
        """The query's logits before and after its episode.

        group: (index, query) of one query. Raises UserError for logits that are not finite before any step.
        """
        ((_, query),) = group
        encoded: Any = self.policy.encode(query.sample)
        before = self.policy.zero_shot(encoded)  # (1, G)
        if not all_finite([before]):
            raise UserError("the student's logits are not finite; use --precision fp32")
        seen = self.rewards.see(query) if self.rewards else None
        gated = self.config.gate == "agree" and seen is not None and bool(agree(before, seen.teacher_logits[0]))
        after, steps, settled = (before, [], None) if gated else self._learn(encoded, before, seen)
        answer = "product" if self.config.how.multiplies else self.config.answer
        if answer != "adapted" and after is not None and seen is not None:
            after = combine(after, seen.teacher_logits[0], answer)
        adapted = None if after is None or not all_finite([after]) else after[0].cpu()
        return [Outcome(before[0].cpu(), adapted, traced(steps, 0), gated, settled)]

    def _learn(self, encoded: Any, before: Tensor, seen: Seen | None) -> tuple[Tensor | None, list[Step], bool | None]:
        """The query's episode. before: (1, G) logits.

        Returns the adapted logits, (1, G), the steps, and whether it ended early, None where it could not.
        """
        config, steps = self.config, list[Step]()
        if self.episodes is None:
            return before, steps, None
        objective = OBJECTIVES[config.method]
        settling = Settling(config.stop_when_settled, config.steps, own=lambda query: [])
        with self.policy as policy, self.episodes.episode(policy.starts(encoded)) as episode:

            def loss(number: int) -> Tensor:
                logits = policy.logits(encoded)[None]
                step = objective(config, logits, seen)
                if config.kl_weight:
                    step = step._replace(loss=step.loss + config.kl_weight * kl_divergence(logits, before[None]))
                steps.append(step._replace(loss=step.loss.detach()))
                settling.see(logits.argmax(dim=-1), step)
                return step.loss.sum()

            after = episode.adapt(loss, lambda: policy.answer(encoded), over=settling.over)
        return after, steps, settling.after != [None] if config.stop_when_settled else None

    @property
    def memory(self) -> Episodes | None:
        """State that the method carries from query to query; None where there is none."""
        return self.episodes if self.config.momentum else None


def make_policy(config: RetrievalConfig, student: Backbone, gallery: Tensor) -> Policy:
    """The student of one direction. gallery: (G, D) features, unit length."""
    if config.direction == "i2t":
        return ImagePolicy(student, gallery, config.tune)
    return TextPolicy(student, gallery, config.tune, config.tune_embeddings, whole_table=config.momentum)


def make_rewards(
    config: RetrievalConfig, models: Models, gallery: Mapping[int, Tensor], texts: Sequence[str] = ()
) -> Rewards | None:
    """The reward models that the method asks; None for a method that asks none. gallery, texts: see `Rewards`."""
    if not models.rewards:
        return None
    weights = reward_weights(config, len(models.rewards))
    return Rewards(models.rewards, gallery, weights, texts, config.clipscore_weight)


def as_encoded(config: RetrievalConfig, text: str) -> str:
    """The text as the models read it."""
    return clean_text(text) if config.clean_text else text


def evaluation_view(clip: Backbone, image: Picture) -> Tensor:
    """The model's evaluation view of an image, (1, 3, H, W) uint8: the view that all models see."""
    view = Views(clip.centre_view, clip.size, count=1)(as_image(image), 0)
    assert isinstance(view, Tensor)  # made at once
    return view


@torch.no_grad()
def encode_views(clip: Backbone, views: Tensor) -> Tensor:
    """Features of images, (N, D), unit length. views: (N, 3, H, W) uint8."""
    return torch.cat([clip.encode_image(clip.prepare(batch)) for batch in views.split(IMAGE_BATCH)])

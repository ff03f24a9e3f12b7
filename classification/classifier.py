"""Answering images with a CLIP that adapts to each: the walk of an image from its views to its answer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import PIL.Image
import torch
from torch import Tensor

from classification.clip_model import (
    EncoderPolicy,
    FrozenPolicy,
    Policy,
    PromptPolicy,
    class_features,
    features_of_context,
)
from classification.config import ClassificationConfig
from classification.context import initial_context
from classification.objectives import OBJECTIVES, Kept
from classification.reward import Rewards
from classification.training_free import ANSWERS, Cache, Image
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import GroupGivenUp, side_by_side
from rlcf.adapt.objectives import Step, agree, combine, kl_divergence, marginal_entropy, select_confident
from rlcf.adapt.rewards import Seen
from rlcf.adapt.settled import Settling
from rlcf.adapt.trace import Outcome, TracedStep, traced
from rlcf.adapt.views import PlannedViews, Views
from rlcf.clip.backbone import Backbone
from rlcf.digests import digest_of_tensors
from rlcf.errors import UserError, flags_as_settings
from rlcf.inputs.images import as_image
from rlcf.run.carried import Memory
from rlcf.run.setup import Models, Setup, as_texts, reward_weights


@dataclass(frozen=True)
class Answer:
    """An image's answer.

    labels: the C class names; zero_shot, adapted: (C,) their probabilities before and after the episode; trace: its
    steps; finite: False for an episode that was given up, whose adapted answer is the zero-shot one.
    """

    labels: list[str]
    zero_shot: Tensor
    adapted: Tensor
    trace: list[TracedStep]
    finite: bool = True

    @property
    def label(self) -> str:
        """The likeliest class after the episode."""
        return self.labels[int(self.adapted.argmax())]

    @property
    def zero_shot_label(self) -> str:
        """The likeliest class before it."""
        return self.labels[int(self.zero_shot.argmax())]


class Classifier:
    """Classifies images with a CLIP that adapts to each one.

    classnames: C of them. settings: those of `ClassificationConfig`, with its defaults and checks: student, reward,
    method, tune, lr, ...; `reward` may also be a function of yours (see `RewardFunction`). Raises UserError for a
    setting that is wrong, and as `load_models`.

        classifier = Classifier(["cat", "dog"], student="ViT-B/16", reward=["ViT-L/14"], tune="prompt", lr=7e-3)
        print(classifier("photo.jpg").label)
    """

    def __init__(self, classnames: Sequence[str], **settings: object) -> None:
        with flags_as_settings():
            classnames = as_texts(classnames, "classnames")
            setup = Setup.of_settings(ClassificationConfig, settings)
            setup.config.check_classes(len(classnames), "the given ones")
            self._set_up(setup.config, setup.load_models(), classnames)

    @classmethod
    def of(cls, config: ClassificationConfig, models: Models, classnames: Sequence[str]) -> "Classifier":
        """A classifier of settings and models that are there already."""
        classifier = cls.__new__(cls)
        classifier._set_up(config, models, classnames)
        return classifier

    def _set_up(self, config: ClassificationConfig, models: Models, classnames: Sequence[str]) -> None:
        student = models.student
        self.config, self.models, self.classnames = config, models, list(classnames)
        self.views = Views(
            student.centre_view, student.size, config.n_views, config.augment, config.seed, config.views_on_device
        )
        self.policy = make_policy(config, student, self.classnames)
        self.rewards = make_rewards(config, models, self.classnames)
        self.episodes: Episodes | None = None
        self._cache: Cache | None = None
        if isinstance(self.policy, FrozenPolicy) and config.how.remembers:
            self._cache = Cache(self.policy.class_features)
        if not isinstance(self.policy, FrozenPolicy):
            tuned, buffers = self.policy.tuned, self.policy.buffers
            self.episodes = Episodes.from_config(config, tuned, buffers, student.precision)

    def __call__(self, image: "PIL.Image.Image | str | Path | Tensor", index: int = 0) -> Answer:
        """The answer to one image.

        image: a PIL image, a file, or a tensor (3, H, W), uint8 or float in [0, 1]. index: the image's number, which
        with the seed decides its views. Raises UserError for a file that cannot be read.
        """
        with flags_as_settings():
            views = self.views(as_image(image), index)
            (outcome,) = side_by_side([(index, views)], self.adapt)
        return Answer(
            self.classnames,
            outcome.before.softmax(dim=-1),
            outcome.answer.softmax(dim=-1),
            outcome.trace,
            finite=outcome.after is not None,
        )

    def adapt(self, group: Sequence[tuple[int, Tensor | PlannedViews]]) -> list[Outcome]:
        """Each image's logits before and after its episode.

        group: (index, views) of up to `config.images_at_once` images, the centre crop first. Raises GroupGivenUp when
        one of several images is given up, or when their fp16 gradients overflow, which alone would cost it a step; and
        UserError for logits that are not finite before any step.
        """
        device, places = self.models.student.device, self.config.images_at_once
        views = [made.render(device) if isinstance(made, PlannedViews) else made for _, made in group]
        filled = [*views, *views[-1:] * (places - len(views))]  # the policy has as many places
        stacked = (
            torch.stack(filled) if len(filled) > 1 else views[0][None]
        )  # without a copy, which would not be pinned
        walked = self._walk(stacked, several=len(group) > 1)
        before, after = walked.before.cpu(), None if walked.after is None else walked.after.cpu()
        if not before[: len(group)].isfinite().all():
            raise UserError("the student's logits are not finite; use --precision fp32")
        if after is None and len(group) > 1:
            raise GroupGivenUp
        return [
            Outcome(
                before[i],
                # A logit of -inf is one of no chance, such as of no vote.
                None if after is None or not after[i].softmax(dim=-1).isfinite().all() else after[i],
                [] if gated else traced(walked.steps[:ended], i, walked.kept[i].tolist()),
                gated,
                None if gated or not self.config.stop_when_settled else ended is not None,
            )
            for i, (gated, ended) in enumerate(zip(walked.gated[: len(group)], walked.ended, strict=False))
        ]

    @property
    def digests(self) -> dict[str, str]:
        """Digests of the models and of the context that is read from a file, by what an error calls them."""
        config, student = self.config, self.models.student
        if config.context in ("words", "random"):
            return self.models.digests
        context = initial_context(student, config.context, config.n_ctx, config.prompt, config.seed)
        return {**self.models.digests, "context vectors": digest_of_tensors({"context": context})}

    @property
    def memory(self) -> Memory | None:
        """State that the method carries from image to image; None where there is none."""
        return self.episodes if self.config.momentum else self._cache

    def _walk(self, views: Tensor, several: bool) -> "_Walked":
        """The walk of N images: views, what is frozen of them, choice of views, steps, answer.

        views: (N, V, 3, H, W) as made; several: True where they are of different images.
        """
        if isinstance(self.policy, FrozenPolicy) or self.episodes is None:
            return self._answer_without_gradients(views)
        with self.policy as policy:
            with self.episodes.episode() as episode:
                views, numbers = self._shortlist(policy, views, episode.start)
                frozen = policy.encode(views)
                ranking = policy.rank(frozen, episode.start)  # (N, V, C)
                kept = self._choose(ranking.detach())  # (N, K)
                chosen, start, seen = take(frozen, kept), take(ranking.detach(), kept), self._see(views, kept)
                gated = self._gate(start, seen)
                settling = Settling(self.config.stop_when_settled, self.config.steps, policy.own, gated)
                steps: list[Step] = []

                def loss(number: int) -> Tensor:
                    classes = policy.classes(episode.start if number == 0 else None)
                    learn_from_ranking = number == 0 and policy.views_interact
                    logits = take(ranking, kept) if learn_from_ranking else policy.logits(chosen, classes)
                    step = self._objective(Kept(logits, start, classes, seen))
                    steps.append(step._replace(loss=step.loss.detach()))
                    settling.see(logits.argmax(dim=-1), step)
                    return step.loss.sum()

                def answer() -> Tensor:
                    settling.put_back()
                    return policy.answer(centre)[:, 0]

                centre, after = frozen[:, :1], None
                if not all(gated):
                    after = episode.adapt(loss, answer, skip_overflow=not several, over=settling.over)
            before = policy.zero_shot(centre)[:, 0]
        if all(gated):
            after = before
        elif any(gated) and after is not None:
            after = torch.where(torch.tensor(gated, device=after.device)[:, None], before, after)
        if self.config.answer != "adapted" and after is not None:
            after = combine(after, self._teacher_of_centre(views, seen), self.config.answer)
        return _Walked(before, after, steps, take(numbers, kept), gated, settling.after)

    def _answer_without_gradients(self, views: Tensor) -> "_Walked":
        """The walk of N images of a method without gradients. views: (N, V, 3, H, W) as made."""
        assert isinstance(self.policy, FrozenPolicy)
        features = self.policy.encode(views)
        logits = self.policy.zero_shot(features)
        kept = select_confident(logits, self.config.kept)
        classes, scale = self.policy.class_features, self.policy.clip.logit_scale
        image = Image(features, classes, scale, kept, self._see(views, kept), self._cache)
        answer = ANSWERS[self.config.method](self.config, image)
        return _Walked(logits[:, 0], answer, [], kept, [False] * len(views), [None] * len(views))

    def _choose(self, ranking: Tensor) -> Tensor:
        """Indices of the views that are learnt from, (N, K). ranking: (N, V, C) logits."""
        if not self.config.learn_from_centre:
            return select_confident(ranking, self.config.kept)
        others = select_confident(ranking[:, 1:], self.config.kept - 1) + 1
        return torch.cat([torch.zeros_like(ranking[:, :1, 0], dtype=torch.long), others], dim=1)

    def _gate(self, start: Tensor, seen: Seen | None) -> list[bool]:
        """True for each of the N images that needs no episode. start: (N, K, C) logits before any step."""
        if self.config.gate == "none" or seen is None:
            return [False] * len(start)
        return agree(start, seen.teacher_logits).tolist()

    def _teacher_of_centre(self, views: Tensor, seen: Seen | None) -> Tensor:
        """The reward models' logits of the centre crops, (N, C). seen: the views that were kept."""
        assert self.rewards is not None and seen is not None
        if self.config.learn_from_centre:  # then the centre crop is the first of them
            return seen.teacher_logits[:, 0]
        return self.rewards.see(views[:, :1]).teacher_logits[:, 0]

    def _shortlist(self, policy: Policy, views: Tensor, start: int) -> tuple[Tensor, Tensor]:
        """The views to rank, (N, V, 3, H, W), and their numbers, (N, V).

        With --select-precision bf16 they are the centre crop and the views that are most confident in bf16, twice as
        many as are kept.
        """
        numbers, count = torch.arange(views.shape[1]).expand(len(views), -1), 2 * self.config.kept
        if self.config.select_precision == "same" or views.shape[1] <= 1 + count:
            return views, numbers
        ranked = select_confident(policy.screen(views, start)[:, 1:], count) + 1
        few = torch.cat([torch.zeros_like(ranked[:, :1]), ranked], dim=1)
        return take(views, few), take(numbers, few)

    def _see(self, views: Tensor, kept: Tensor) -> Seen | None:
        """The kept views as the reward models see them."""
        return self.rewards.see(take(views, kept)) if self.rewards else None

    def _objective(self, kept: Kept) -> Step:
        """The method's step; beside its loss the terms that are asked for."""
        config = self.config
        step = OBJECTIVES[config.method](config, kept)
        if config.entropy_weight:
            step = step._replace(loss=step.loss + config.entropy_weight * marginal_entropy(kept.logits))
        if config.kl_weight:
            step = step._replace(loss=step.loss + config.kl_weight * kl_divergence(kept.logits, kept.before))
        return step


@dataclass(frozen=True)
class _Walked:
    """N images' logits before and after, (N, C), after: None for an episode that was given up; the steps they took
    together; kept: (N, K) numbers of the views that were learnt from; gated: True for each image that took none; ended:
    of each image the number of steps after which it had settled, None where it took all."""

    before: Tensor
    after: Tensor | None
    steps: list[Step]
    kept: Tensor
    gated: list[bool]
    ended: Sequence[int | None]


def take(rows: Tensor, chosen: Tensor) -> Tensor:
    """Rows of each sample. rows: (N, V, ...); chosen: (N, K). Returns (N, K, ...)."""
    chosen = chosen.to(rows.device)
    return rows[torch.arange(len(chosen), device=rows.device).unsqueeze(-1), chosen]


def make_policy(
    config: ClassificationConfig, student: Backbone, classnames: Sequence[str]
) -> FrozenPolicy | PromptPolicy | EncoderPolicy:
    """The student of a method: frozen where it takes no steps. Raises UserError for settings that do not fit it."""
    if config.tune == "prompt" and config.templates == "single":
        context = initial_context(student, config.context, config.n_ctx, config.prompt, config.seed)
        if config.how.adapts:
            return PromptPolicy(
                student, classnames, context, config.class_position, config.images_at_once, config.class_chunk
            )
        return FrozenPolicy(student, features_of_context(student, classnames, context, config.class_position))
    features = class_features(student, classnames, config.prompt, config.class_position, config.templates)
    if not config.how.adapts:
        return FrozenPolicy(student, features)
    policy = EncoderPolicy(student, features, config.tune, config.batchnorm, config.bn_prior, config.images_at_once)
    if policy.views_interact and config.select_precision == "bf16":
        raise UserError(
            "--select-precision bf16 leaves out views whose BatchNorm statistics count; use --batchnorm frozen"
        )
    return policy


def make_rewards(config: ClassificationConfig, models: Models, classnames: Sequence[str]) -> Rewards | None:
    """The reward models that the method asks; None for a method that asks none."""
    if not models.rewards:
        return None
    prompt = config.prompt.replace("_", " ") if config.tune == "prompt" else config.prompt  # as published
    weights = reward_weights(config, len(models.rewards))
    return Rewards(models.rewards, classnames, prompt, weights, config.clipscore_weight)

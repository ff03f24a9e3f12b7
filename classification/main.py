"""Image classification, adapting CLIP to one image at a time.

Each image's views are ranked by the entropy of their zero-shot logits; the most confident ones are learnt from for a
few steps, the image is answered, and the weights are put back.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from classification.clip_model import EncoderPolicy, Policy, PromptPolicy, class_features, initial_context
from classification.config import ClassificationConfig
from classification.datasets import Dataset, load_dataset
from classification.metrics import as_line, count, describe, summarise
from classification.reward import Rewards, Seen
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import in_groups
from rlcf.adapt.objectives import atkd, count_confident, dkd, kd, marginal_entropy, reinforce, select_confident
from rlcf.adapt.rewards import advantages, ensemble_weights
from rlcf.adapt.views import PlannedViews, Views
from rlcf.clip.backbone import Backbone, load_clip
from rlcf.errors import UserError, run_main
from rlcf.run.config import parse_config, resolve_device, resolve_precision
from rlcf.run.files import write_atomically
from rlcf.run.images import ImageLoader, refuse_or_skip
from rlcf.run.memory import peak_memory_mb
from rlcf.run.records import Run, Shard, shuffled

DISTILLATION = {"kd": kd, "dkd": dkd, "atkd": atkd}
EPILOG = """examples:
  python classification/main.py --config classification/configs/rlcf-prompt.yaml --data ROOT --datasets A V R K
  python classification/main.py --method zeroshot --student ViT-B-32:laion2b_s34b_b79k --data IMAGES --datasets folder
  torchrun --nproc-per-node 4 classification/main.py --config classification/configs/rlcf-tune-single.yaml --data ROOT

The run folder gets config.yaml, log.txt, results.json and <dataset>/records.jsonl. The same command again goes on with
a run that was stopped. Presets: classification/configs/.
"""


def objective(config: ClassificationConfig, logits: Tensor, seen: Seen | None) -> Tensor:
    """What a step minimises.

    logits: (V, C) of the views that are learnt from; seen: the same views as the reward models see them (None: TPT).
    Returns a scalar; of (N, V, C), N samples at once, one each.
    """
    if seen is None:
        return marginal_entropy(logits)
    if config.method == "rlcf":
        answers = logits.topk(config.sample_k, dim=-1).indices
        value = reinforce(logits, answers, advantages(seen.scores(answers), config.baseline, config.divide_by_std))
    else:
        further = {"scale": config.atkd_scale} if config.method == "atkd" else {}
        value = DISTILLATION[config.method](logits, seen.teacher_logits(), **further)
    return value + config.entropy_weight * marginal_entropy(logits) if config.entropy_weight else value


def adapt(
    config: ClassificationConfig,
    policy: Policy,
    rewards: Rewards | None,
    episodes: Episodes,
    views: Tensor,
    mixed: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """An image's logits before and after its episode, or those of N images at once.

    views: (V, 3, H, W) or (N, V, 3, H, W) as made, the centre crop first; mixed: whether the N images are different
    ones. Returns (C,), and (C,) or None for an episode that was given up; (N, C), and (N, C) or None when one of the N
    should be, or when a mixed one's fp16 gradients overflow, which alone would cost it a step.
    """
    if config.method != "zeroshot":
        keep = count_confident(views.shape[-4], config.selection)
        if config.select_precision == "bf16":
            views = shortlist(policy, views, 2 * keep)
    encoded = policy.encode(views)
    centre = encoded.narrow(views.dim() - 4, 0, 1)
    with torch.no_grad(), episodes.original_weights():
        before = policy.zero_shot(centre).squeeze(-2)
    if config.method == "zeroshot":
        return before, before
    chosen, seen = encoded, None

    def loss(step: int) -> Tensor:
        nonlocal chosen, seen
        if step == 0:
            # The choice needs no graph, unless views interact: then it is this pass that is learnt from.
            with torch.set_grad_enabled(policy.views_interact):
                logits = policy.logits(encoded)
            kept = select_confident(logits.detach(), keep)
            chosen = take(encoded, kept)
            seen = rewards.see(take(views, kept.to(views.device))) if rewards else None
            if policy.views_interact:
                return objective(config, take(logits, kept), seen).sum()
        return objective(config, policy.logits(chosen), seen).sum()

    return before, episodes.run(loss, lambda: policy.answer(centre).squeeze(-2), skip_overflow=not mixed)


def take(views: Tensor, kept: Tensor) -> Tensor:
    """The views kept of each sample, or what was made of them. views: (V, ...) or (N, V, ...); kept: (K,) or (N, K)."""
    return views[kept] if kept.dim() == 1 else views[torch.arange(len(kept), device=kept.device).unsqueeze(-1), kept]


def shortlist(policy: Policy, views: Tensor, count: int) -> Tensor:
    """The centre crop and the `count` views that are most confident in bf16. views: (V, 3, H, W) or (N, V, 3, H, W)."""
    if views.shape[-4] <= 1 + count:
        return views
    ranked = select_confident(policy.screen(views)[..., 1:, :], count) + 1
    kept = torch.cat([torch.zeros_like(ranked[..., :1]), ranked], dim=-1)
    return take(views, kept.to(views.device))


def adapt_group(
    config: ClassificationConfig,
    policy: Policy,
    rewards: Rewards | None,
    episodes: Episodes,
    group: Sequence[tuple[int, Tensor | PlannedViews]],
) -> list[tuple[Tensor, Tensor | None]]:
    """Each image's logits before and after its episode, (C,); after: None when it was given up.

    group: (index, views) of up to `config.episodes` images, as many as the policy has places for: the last one fills
    those that are left. Returns none when one of several images is given up (`rlcf.adapt.groups`).
    """
    views = [made.render(policy.clip.device) if isinstance(made, PlannedViews) else made for _, made in group]
    filled = [*views, *views[-1:] * (config.episodes - len(views))]
    stacked = torch.stack(filled) if len(filled) > 1 else views[0][None]  # without a copy, which would not be pinned
    before, after = adapt(config, policy, rewards, episodes, stacked, len(group) > 1)
    before = before[: len(group)].cpu()
    if after is None:
        return [] if len(group) > 1 else [(row, None) for row in before]
    return list(zip(before, after[: len(group)].cpu(), strict=True))


def make_policy(config: ClassificationConfig, student: Backbone, classnames: list[str]) -> Policy:
    if config.tune == "prompt" and config.templates == "single":
        context = initial_context(student, config.context, config.n_ctx, config.prompt, config.seed)
        return PromptPolicy(student, classnames, context, config.class_position, config.episodes, config.class_chunk)
    features = class_features(student, classnames, config.prompt, config.class_position, config.templates)
    policy = EncoderPolicy(student, features, config.tune, config.batchnorm, config.bn_prior, config.episodes)
    if policy.views_interact and config.select_precision == "bf16":
        raise UserError(
            "--select-precision bf16 leaves out views whose BatchNorm statistics count; use --batchnorm frozen"
        )
    return policy


def make_rewards(config: ClassificationConfig, clips: list[Backbone], classnames: list[str]) -> Rewards | None:
    if not clips:
        return None
    weights = ensemble_weights(config.reward_weights or [1.0] * len(clips), config.round_reward_weights)
    prompt = config.prompt.replace("_", " ") if config.tune == "prompt" else config.prompt  # as published
    return Rewards(clips, classnames, prompt, weights, config.clipscore_weight)


def run_dataset(
    config: ClassificationConfig,
    dataset: Dataset,
    student: Backbone,
    reward_clips: list[Backbone],
    run: Run,
) -> None:
    """Adapt to every image of a dataset, record it, and report."""
    order = shuffled(len(dataset.ids), config.seed, config.limit)
    config = replace(config, episodes=min(config.episodes, len(order)))
    policy = make_policy(config, student, dataset.classnames)
    rewards = make_rewards(config, reward_clips, dataset.classnames)
    episodes = Episodes.from_config(config, policy.tuned, policy.buffers, student.precision)
    loaded = episodes.state_dict()
    matrices = dict.fromkeys(("zero_shot", "adapted"), len(dataset.classnames))
    records = run.records(dataset.name, episodes, matrices if config.save_logits else None)
    if run.shard.first:
        write_atomically(records.folder / "classnames.txt", "".join(f"{name}\n" for name in dataset.classnames))
    ids = dataset.ids
    todo = records.todo(order, ids)
    views = Views(
        student.centre_view, student.size, config.n_views, config.augment, config.seed, config.views_on_device
    )
    loader = ImageLoader(dataset.files, todo, views, student.size if config.draft_jpeg else None)
    samples = loader.one_by_one(config.workers, student.device.type == "cuda")
    outcomes = in_groups(samples, config.episodes, partial(adapt_group, config, policy, rewards, episodes))
    tally: Counter[str] = Counter()
    for record in records.written:
        count(tally, record)
    done = len(records.done)
    with records, tqdm(outcomes, desc=dataset.name, initial=done, total=done + len(todo)) as progress:
        for index, outcome, seconds in progress:
            record = {"index": index, "id": ids[index], "label": dataset.samples[index][1]}
            if isinstance(outcome, str):
                refuse_or_skip(outcome, config.skip_bad_images)
                records.add(record | {"status": "unreadable", "reason": outcome})
                continue
            before, after = outcome
            if not before.isfinite().all():
                raise UserError(f"the student's logits of {ids[index]} are not finite; use --precision fp32")
            answer = before if after is None else after
            record |= {"status": "ok" if after is not None else "non-finite"}
            record |= describe("zero_shot", before) | describe("adapted", answer) | {"seconds": seconds}
            records.add(record, {"zero_shot": before, "adapted": answer})
            progress.set_postfix_str(count(tally, record), refresh=False)
    episodes.load_state_dict(loaded)  # a momentum buffer ends with its dataset
    summary = summarise(records.finish())
    if run.shard.first:
        summary["peak_memory_mb"] = peak_memory_mb(student.device)
        run.report(dataset.name, summary)
        print(as_line(dataset.name, config.method, summary), flush=True)


def main(argv: list[str] | None = None) -> None:
    config = parse_config(ClassificationConfig, argv, __doc__ or "", EPILOG)
    shard = Shard.from_environment()
    if config.momentum and shard.count > 1:
        raise UserError("--momentum carries weights from sample to sample and cannot be sharded; start one process")
    device = resolve_device(config, shard.local_rank)
    precision = resolve_precision(config, device)
    datasets = [
        load_dataset(name, config.data, config.corruption, config.severity, config.classnames)
        for name in config.datasets
    ]
    for dataset in datasets:
        if config.method == "rlcf" and config.sample_k > len(dataset.classnames):
            raise UserError(
                f"--sample-k {config.sample_k} exceeds the {len(dataset.classnames)} classes of {dataset.name}"
            )
    run = Run(replace(config, device=device.type, precision=precision), shard)
    student = load_clip(config.student, device, precision, config.clip_root)
    reward_clips = [load_clip(name, device, precision, config.clip_root) for name in config.reward_names]
    for dataset in datasets:
        run_dataset(config, dataset, student, reward_clips, run)


if __name__ == "__main__":
    run_main(main)

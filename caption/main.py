"""Image captioning, adapting the captioner to one image at a time.

The captioner proposes its most likely captions of an image, the reward model scores them, the mapper learns from that
for a few steps, the image is captioned, and the weights are put back.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from caption.captioner import Captioner
from caption.datasets import NAMES, Dataset, load_dataset
from caption.evaluate import Evaluation, write_captions
from caption.generate import beam_search, nucleus_sampling
from caption.language_model import load_language_model
from caption.mapper import read_checkpoint
from caption.metrics import Outcome, as_line, count, describe, summarise
from caption.reward import Rewards
from rlcf.adapt.episode import Episodes
from rlcf.adapt.groups import in_groups
from rlcf.adapt.rewards import advantages, ensemble_weights
from rlcf.adapt.views import Views
from rlcf.clip.backbone import Backbone, load_clip
from rlcf.errors import UserError, run_main
from rlcf.run.config import Config, option, parse_config, resolve_device, resolve_precision
from rlcf.run.images import ImageLoader, refuse_or_skip
from rlcf.run.memory import peak_memory_mb
from rlcf.run.records import Record, Run, Shard, shuffled

EPILOG = """examples:
  python caption/main.py --config caption/configs/clipcap-c2f.yaml --data ROOT --checkpoint RUN/ckpt-latest.pt
  python caption/main.py --method none --checkpoint RUN --data IMAGES --datasets folder
  torchrun --nproc-per-node 4 caption/main.py --config caption/configs/capdec-c2n.yaml --data ROOT --checkpoint RUN

The run folder gets config.yaml, log.txt, results.json and, per dataset, records.jsonl, candidates.json,
candidates-zero-shot.json and references.json, which clipscore/main.py reads. The same command again goes on with a run
that was stopped. Presets: caption/configs/.
"""
METHODS = ("none", "rlcf")


@dataclass
class CaptionConfig(Config):
    """Settings of a captioning run."""

    datasets: list[str] = option(["coco"], f"one or more of {' '.join(NAMES)} folder:SUBFOLDER", group="data")
    evaluate: bool = option(False, "score the captions, before and after, with clipscore/main.py", group="evaluation")
    evaluate_clip: str = option("ViT-B/32", "the CLIP of CLIPScore", group="evaluation")
    evaluate_java: bool = option(True, "METEOR and the PTB tokenizer, by Java where there is one", group="evaluation")
    evaluate_prefix: str = option("A photo depicts ", "what stands before a caption for it", group="evaluation")

    checkpoint: str = option(
        "",
        "the captioner: a training run's folder, a file (ckpt-latest.pt as published), or demo-clipcap, demo-capdec",
        group="models",
    )
    language_model: str = option(
        "facebook/opt-125m",
        "the language model that it was trained with: Hugging Face name, folder, demo-lm",
        group="models",
    )

    method: str = option("rlcf", "none: caption without adaptation, or what adapts", choices=METHODS, group="method")
    sampling: str = option(
        "beam",
        "where the K captions come from: beam search, or draws from the nucleus",
        choices=("beam", "nucleus"),
        group="method",
    )
    top_p: float = option(0.9, "probability of the nucleus", above=0, at_most=1, group="method")
    beams: int = option(5, "beams of the final caption", at_least=1, group="method")
    max_new_tokens: int = option(50, "longest caption, tokens", at_least=1, group="method")
    episodes: int = option(
        1,
        "images that are adapted to at once: the same captions up to rounding, faster with beam search, since the "
        "language model makes a token of all captions in one go; each takes five times its mapper's memory",
        at_least=1,
        group="speed",
    )
    score_padding: bool = option(
        False, "as published, let the padding of shorter captions count as text in the loss", group="method"
    )

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        super().check()
        if not self.checkpoint:
            raise UserError("no captioner; give --checkpoint a training run's folder, ckpt-latest.pt or demo-clipcap")
        if self.episodes > 1 and self.momentum:
            raise UserError("--momentum carries weights from sample to sample; use --episodes 1")

    @property
    def reward_names(self) -> list[str]:
        """The reward models that the method asks."""
        return [] if self.method == "none" else self.reward


def candidates(
    config: CaptionConfig, captioner: Captioner, prefix: Tensor, indices: Sequence[int], step: int
) -> list[list[str]]:
    """The K captions of each image that a step learns from. prefix: (N, P, width); indices: of the N samples."""
    if config.sampling == "beam":
        return beam_search(captioner.lm, prefix, config.sample_k, config.sample_k, config.max_new_tokens)
    seeds = [(config.seed, index, step) for index in indices]
    return [
        nucleus_sampling(captioner.lm, own, config.sample_k, config.top_p, seed, config.max_new_tokens)
        for own, seed in zip(prefix.split(1), seeds, strict=True)
    ]


def objective(log_likelihood: Tensor, advantages: Tensor) -> Tensor:
    """REINFORCE over the sampled captions: mean of advantage * negative log-likelihood (RLCF, ICLR 2024, eq. 3).

    log_likelihood: (N, K) mean over each caption's tokens; advantages: (N, K), constants. Returns (N,).

    >>> objective(torch.tensor([[-1.0, -2.0]]), torch.tensor([[0.5, -0.5]])).item()  # (0.5 * 1 - 0.5 * 2) / 2
    -0.25
    """
    return -(advantages * log_likelihood).mean(dim=-1)


def adapt(
    config: CaptionConfig,
    captioner: Captioner,
    rewards: Rewards | None,
    episodes: Episodes,
    group: Sequence[tuple[int, Tensor]],
) -> list[Outcome]:
    """Images' captions before and after their episodes, all images of the group at once.

    group: each sample's index, which with the seed decides what is drawn, and its view, (1, 3, H, W) as made. Returns
    no outcome when one of several should be given up, or when its fp16 gradients overflow, which alone would cost it a
    step (`rlcf.adapt.groups`).
    """
    indices, views = zip(*group, strict=True)
    view = torch.cat(views) if len(views) > 1 else views[0]  # without a copy, which would not be pinned
    features = captioner.encode(view)
    with torch.no_grad(), episodes.original_weights():
        before = captioner.prefix(features)
    if not before.isfinite().all():
        raise UserError("the captioner's prefix is not finite; use --precision fp32")
    if rewards is None:
        captions = captioner.caption(before, config.beams, config.max_new_tokens)
        return [Outcome(caption, caption, [], []) for caption in captions]
    seen = rewards.see(view)
    steps: list[list[dict[str, Any]]] = [[] for _ in group]

    def loss(step: int) -> Tensor:
        prefix = captioner.prefix(features)
        if not prefix.isfinite().all():
            return prefix.sum()
        texts = candidates(config, captioner, prefix.detach(), indices, step)
        scores = seen.scores(texts)
        for taken, captions, values in zip(steps, texts, scores.tolist(), strict=True):
            taken.append({"candidates": captions, "rewards": values})
        advantage = advantages(scores[:, None], config.baseline, config.divide_by_std)[:, 0]
        return objective(captioner.log_likelihood(prefix, texts, config.score_padding), advantage).sum()

    # The language model is frozen: the adapted prefix is all that the answer needs.
    after = episodes.run(loss, lambda: captioner.prefix(features), skip_overflow=len(group) == 1)
    if after is None and len(group) > 1:
        return []
    prefixes = torch.stack([before, before if after is None else after], dim=1)
    captions = captioner.caption(prefixes.flatten(0, 1), config.beams, config.max_new_tokens)
    pairs = [captions[i : i + 2] for i in range(0, len(captions), 2)]
    scored = zip(pairs, seen.scores(pairs).tolist(), steps, strict=True)
    return [Outcome(old, new, values, taken, finite=after is not None) for (old, new), values, taken in scored]


def make_captioner(config: CaptionConfig, student: Backbone, samples: int) -> Captioner:
    """samples: how many at most are adapted to at once."""
    checkpoint = read_checkpoint(config.checkpoint)
    lm = load_language_model(config.language_model, student.device, student.precision, checkpoint.language_model)
    trained_with = str(checkpoint.described.get("student", ""))
    return Captioner(student, checkpoint.build_mapper(lm.width), lm, trained_with, samples)


def make_rewards(config: CaptionConfig, clips: list[Backbone]) -> Rewards | None:
    if not clips:
        return None
    weights = ensemble_weights(config.reward_weights or [1.0] * len(clips), config.round_reward_weights)
    return Rewards(clips, weights, config.clipscore_weight)


def make_evaluation(config: CaptionConfig) -> Evaluation:
    return Evaluation(
        config.evaluate_clip,
        config.evaluate_prefix,
        config.evaluate_java,
        config.clip_root,
        config.device,
        config.workers,
    )


def run_dataset(
    config: CaptionConfig, dataset: Dataset, captioner: Captioner, rewards: Rewards | None, run: Run
) -> None:
    """Adapt to every image of a dataset, record it, and report."""
    student = captioner.clip
    episodes = Episodes.from_config(config, captioner.tuned, captioner.buffers, student.precision)
    loaded = episodes.state_dict()
    records = run.records(dataset.name, episodes)
    ids = dataset.ids
    todo = records.todo(shuffled(len(ids), config.seed, config.limit), ids)
    views = Views(student.centre_view, student.size, count=1)
    loader = ImageLoader(dataset.files, todo, views).one_by_one(config.workers, student.device.type == "cuda")
    outcomes = in_groups(loader, len(captioner.mappers), partial(adapt, config, captioner, rewards, episodes))
    progress = tqdm(outcomes, desc=dataset.name, initial=len(records.done), total=len(records.done) + len(todo))
    tally: Counter[str] = Counter()
    for record in records.written:
        count(tally, record)
    with records:
        for index, outcome, seconds in progress:
            record = {"index": index, "id": ids[index], "references": dataset.samples[index].captions}
            if dataset.samples[index].domain:
                record["domain"] = dataset.samples[index].domain
            if isinstance(outcome, str):
                refuse_or_skip(outcome, config.skip_bad_images)
                records.add(record | {"status": "unreadable", "reason": outcome})
                continue
            record |= {"status": "ok" if outcome.finite else "non-finite"} | describe(outcome)
            records.add(record | {"seconds": seconds})
            progress.set_postfix_str(count(tally, record), refresh=False)
    episodes.load_state_dict(loaded)  # a momentum buffer ends with its dataset
    finished = records.finish()
    summary = summarise(finished)
    if run.shard.first:
        summary["peak_memory_mb"] = peak_memory_mb(student.device)
        write_results(config, dataset, records.folder, finished, summary, run)
        print(as_line(dataset.name, config.method, summary), flush=True)


def write_results(
    config: CaptionConfig, dataset: Dataset, folder: Path, records: list[Record], summary: dict[str, Any], run: Run
) -> None:
    """The captions as files, of all images and of each domain's, and the report, with the scores if asked for."""
    answered = [record for record in records if record["status"] != "unreadable"]
    parts = {"": summary}
    for domain in dict.fromkeys(record["domain"] for record in answered if "domain" in record):
        parts[domain] = summarise([record for record in records if record.get("domain") == domain])
        summary.setdefault("domains", {})[domain] = parts[domain]
    for domain in parts:
        write_captions(folder / domain, [r for r in answered if domain in ("", r.get("domain"))])
    run.report(dataset.name, summary)
    if config.evaluate:
        for domain, part in parts.items():
            scores = make_evaluation(config)(folder / domain, dataset.root)
            part["gains"] = scores["gains"]
            for name in ("zero_shot", "adapted"):
                part[name] |= scores[name]
        run.report(dataset.name, summary)


def main(argv: list[str] | None = None) -> None:
    config = parse_config(CaptionConfig, argv, __doc__ or "", EPILOG)
    shard = Shard.from_environment()
    if config.momentum and shard.count > 1:
        raise UserError("--momentum carries weights from sample to sample and cannot be sharded; start one process")
    device = resolve_device(config, shard.local_rank)
    precision = resolve_precision(config, device)
    datasets = [load_dataset(name, config.data) for name in config.datasets]
    run = Run(replace(config, device=device.type, precision=precision), shard)
    student = load_clip(config.student, device, precision, config.clip_root)
    most = max(len(shuffled(len(dataset.ids), config.seed, config.limit)) for dataset in datasets)
    captioner = make_captioner(config, student, min(config.episodes, most))
    rewards = make_rewards(
        config, [load_clip(name, device, precision, config.clip_root) for name in config.reward_names]
    )
    for dataset in datasets:
        run_dataset(config, dataset, captioner, rewards, run)


if __name__ == "__main__":
    run_main(main)

"""Image-text retrieval, adapting CLIP to one query at a time.

Image to text (i2t) tunes the image tower for one image against all texts; text to image (t2i) tunes the text tower for
one text against all images. The other side's features stay frozen and are computed once. After a few steps the gallery
is ranked, and the weights are put back.
"""

import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from retrieval.clip_model import ImagePolicy, Policy, TextPolicy
from retrieval.datasets import DIRECTIONS, NAMES, Dataset, load_dataset
from retrieval.features import FrozenFeatures, weights_digest
from retrieval.metrics import as_line, both_directions, count, describe, summarise
from retrieval.reward import Rewards, Seen
from rlcf.adapt.episode import Episodes
from rlcf.adapt.objectives import kd, reinforce
from rlcf.adapt.rewards import advantages, ensemble_weights
from rlcf.adapt.views import Views
from rlcf.clip.backbone import Backbone, load_clip
from rlcf.errors import UserError, run_main
from rlcf.run.config import Config, option, parse_config, resolve_device, resolve_precision
from rlcf.run.files import write_atomically
from rlcf.run.images import ImageLoader, refuse_or_skip
from rlcf.run.memory import peak_memory_mb
from rlcf.run.records import Run, Shard, shuffled

EPILOG = """examples:
  python retrieval/main.py --config retrieval/configs/tta-coco-ret-single.yaml --data ROOT --datasets coco
  python retrieval/main.py --method zeroshot --student ViT-B-32:laion2b_s34b_b79k --data PHOTOS --datasets json:list
  torchrun --nproc-per-node 4 retrieval/main.py --config retrieval/configs/tta-coco-ret-single.yaml --data ROOT

The run folder gets config.yaml, log.txt, results.json, <dataset>-<direction>/records.jsonl and features/, what stays
frozen. The same command again goes on with a run that was stopped. Presets: retrieval/configs/.
"""
METHODS = ("zeroshot", "rlcf", "kd")


@dataclass
class RetrievalConfig(Config):
    """Settings of a retrieval run."""

    datasets: list[str] = option(["coco"], f"one or more of {' '.join(NAMES)}", group="data")
    clean_text: bool = option(False, "clean texts as published: lower case, no marks, 50 words", group="data")
    save_scores: bool = option(False, "keep the score matrices before and after in logits.safetensors", group="run")

    method: str = option("rlcf", "zeroshot, or what adapts", choices=METHODS, group="method")
    direction: str = option(
        "both", "images that look for texts, texts that look for images", choices=(*DIRECTIONS, "both"), group="method"
    )
    tune: str = option(
        "encoder",
        "the query's tower (i2t: image, t2i: text), or its normalisation layers only",
        choices=("encoder", "norm"),
        group="method",
    )
    tune_embeddings: bool = option(
        False, "t2i: also tune the token embeddings and the logit scale, as published", group="method"
    )
    t2i_sample_k: int | None = option(None, "K of t2i, where it is another", at_least=1, group="adaptation")

    def check(self) -> None:
        """Raises UserError for settings that contradict each other."""
        super().check()
        if self.skip_bad_images and self.direction != "i2t":
            raise UserError(
                "--skip-bad-images is for --direction i2t: t2i searches every image; take a bad one out of the list"
            )
        if self.tune_embeddings and (self.direction == "i2t" or self.tune == "norm"):
            raise UserError("--tune-embeddings is for --tune encoder and --direction t2i or both")

    @property
    def reward_names(self) -> list[str]:
        """The reward models that the method asks."""
        return [] if self.method == "zeroshot" else self.reward

    @property
    def one_way(self) -> "list[RetrievalConfig]":
        """The settings of each direction on its own."""
        k = {"i2t": self.sample_k, "t2i": self.t2i_sample_k or self.sample_k}
        return [replace(self, direction=d, sample_k=k[d]) for d in DIRECTIONS if self.direction in (d, "both")]


def objective(config: RetrievalConfig, logits: Tensor, seen: Seen) -> Tensor:
    """What a step minimises. logits: (1, G) over the gallery; seen: the query as the reward models see it."""
    if config.method == "kd":
        return kd(logits, seen.teacher_logits)
    answers = logits.topk(config.sample_k, dim=-1).indices
    return reinforce(logits, answers, advantages(seen.scores(answers), config.baseline, config.divide_by_std))


def adapt(
    config: RetrievalConfig, policy: Policy, seen: Seen | None, episodes: Episodes, sample: Any
) -> tuple[Tensor, Tensor | None]:
    """A query's logits over the gallery before and after its episode.

    sample: what the policy encodes. Returns (G,), and (G,) or None for an episode that was given up.
    """
    encoded = policy.encode(sample)
    episodes.begin(policy.starts(encoded))
    with torch.no_grad(), episodes.original_weights():
        before = policy.logits(encoded)[0]
    if seen is None:
        return before, before
    after = episodes.run(
        lambda step: objective(config, policy.logits(encoded), seen), lambda: policy.logits(encoded)[0]
    )
    return before, after


def freeze(
    config: RetrievalConfig, features: FrozenFeatures, reward_clips: list[Backbone], queries: Sequence[int]
) -> tuple[Tensor, Rewards | None]:
    """What a direction does not tune: the gallery as the student sees it, (G, D), and what the reward models see.

    queries: those that will be adapted to. None for zero-shot.
    """
    sides = (features.images, features.texts)
    see_queries, see_gallery = sides if config.direction == "i2t" else sides[::-1]
    gallery = see_gallery([features.view, *reward_clips], range(features.dataset.gallery_size(config.direction)))
    if not reward_clips:
        return gallery[0], None
    weights = ensemble_weights(config.reward_weights or [1.0] * len(reward_clips), config.round_reward_weights)
    row = {query: number for number, query in enumerate(queries)}
    seen = see_queries(reward_clips, queries)
    return gallery[0], Rewards(reward_clips, seen, row, gallery[1:], weights, config.clipscore_weight)


def make_policy(config: RetrievalConfig, student: Backbone, gallery: Tensor) -> Policy:
    if config.direction == "i2t":
        return ImagePolicy(student, gallery, config.tune)
    return TextPolicy(student, gallery, config.tune, config.tune_embeddings, whole_table=config.momentum)


def load_samples(
    config: RetrievalConfig, dataset: Dataset, student: Backbone, todo: list[int]
) -> Iterator[tuple[int, Any]]:
    """(index, what the policy encodes) of each query; for an image that cannot be read, what is wrong with it."""
    if config.direction == "t2i":
        return ((index, dataset.texts[index]) for index in todo)
    views = Views(student.centre_view, student.size, count=1)
    return ImageLoader(dataset.files, todo, views).one_by_one(config.workers, student.device.type == "cuda")


def run_dataset(config: RetrievalConfig, features: FrozenFeatures, reward_clips: list[Backbone], run: Run) -> None:
    """Adapt to every query of a dataset, in one direction or both, and report."""
    dataset, student = features.dataset, features.view
    truncated = {clip.name: clip.truncated(dataset.texts) for clip in [student, *reward_clips]}
    frozen, order = {}, {}
    for way in config.one_way:  # all before anything is tuned
        size = len(dataset.query_ids(way.direction))
        order[way.direction] = shuffled(size, config.seed, config.limit)
        # In both directions every query is in the other one's gallery.
        queries = range(size) if config.direction == "both" else sorted(order[way.direction])
        frozen[way.direction] = freeze(way, features, reward_clips, queries)
    summaries = []
    for way in config.one_way:
        summary = run_direction(way, dataset, student, *frozen[way.direction], order[way.direction], run)
        summary |= {"truncated_texts": truncated, "peak_memory_mb": peak_memory_mb(student.device)}
        summaries.append(summary)
        if run.shard.first:
            name = f"{dataset.name}-{way.direction}"
            run.report(name, summary)
            print(as_line(name, config.method, summary), flush=True)
    if run.shard.first and len(summaries) == 2:
        whole = both_directions(*summaries)
        run.report(dataset.name, whole)
        before, after = (f"{whole[name]['r_mean']:.2f}" for name in ("zero_shot", "adapted"))
        adapted = "" if config.method == "zeroshot" else f", {config.method} {after}"
        print(f"{dataset.name}: zero-shot mean recall {before}{adapted}", flush=True)


def run_direction(
    config: RetrievalConfig,
    dataset: Dataset,
    student: Backbone,
    gallery: Tensor,
    rewards: Rewards | None,
    order: list[int],
    run: Run,
) -> dict[str, Any]:
    """Adapt to every query of a direction and record it. Returns the metrics."""
    policy = make_policy(config, student, gallery)
    episodes = Episodes.from_config(config, policy.tuned, {}, student.precision)
    loaded = episodes.state_dict()
    matrices = dict.fromkeys(("zero_shot", "adapted"), len(gallery))
    name, ids = f"{dataset.name}-{config.direction}", dataset.query_ids(config.direction)
    records = run.records(name, episodes, matrices if config.save_scores else None)
    keep_to_list(records.folder, dataset, run.shard)
    todo = records.todo(order, ids)
    samples = load_samples(config, dataset, student, todo)
    progress = tqdm(samples, desc=name, initial=len(records.done), total=len(records.done) + len(todo))
    tally: Counter[str] = Counter()
    for record in records.written:
        count(tally, record)
    with records:
        for index, sample in progress:
            record = {"index": index, "id": ids[index]}
            if isinstance(sample, str) and config.direction == "i2t":
                refuse_or_skip(sample, config.skip_bad_images)
                records.add(record | {"status": "unreadable", "reason": sample})
                continue
            started = time.perf_counter()
            before, after = adapt(config, policy, rewards.see(index) if rewards else None, episodes, sample)
            if not before.isfinite().all():
                raise UserError(f"the student's logits of {ids[index]} are not finite; use --precision fp32")
            answer, targets = before if after is None else after, dataset.targets(config.direction, index)
            record |= {"status": "ok" if after is not None else "non-finite", "targets": targets}
            record |= describe("zero_shot", before, targets) | describe("adapted", answer, targets)
            records.add(record | {"seconds": time.perf_counter() - started}, {"zero_shot": before, "adapted": answer})
            progress.set_postfix_str(count(tally, record), refresh=False)
    episodes.load_state_dict(loaded)  # a momentum buffer ends with its direction
    return summarise(records.finish(), config.direction, dataset.image_of)


def keep_to_list(folder: Path, dataset: Dataset, shard: Shard) -> None:
    """A run goes on with the list it was begun with. Raises UserError for another one."""
    file = folder / "list.sha256"
    if shard.first and file.exists() and file.read_text().strip() != dataset.digest:
        raise UserError(f"{folder} was begun with another list than {dataset.name} is now; choose another --output")
    if shard.first:
        write_atomically(file, dataset.digest + "\n")


def main(argv: list[str] | None = None) -> None:
    config = parse_config(RetrievalConfig, argv, __doc__ or "", EPILOG)
    shard = Shard.from_environment()
    if config.momentum and shard.count > 1:
        raise UserError("--momentum carries weights from sample to sample and cannot be sharded; start one process")
    device = resolve_device(config, shard.local_rank)
    precision = resolve_precision(config, device)
    datasets = [load_dataset(name, config.data, config.clean_text) for name in config.datasets]
    for dataset, way in itertools.product(datasets, config.one_way):
        size, what = dataset.gallery_size(way.direction), {"i2t": "texts", "t2i": "images"}[way.direction]
        if config.method == "rlcf" and way.sample_k > size:
            raise UserError(f"--sample-k {way.sample_k} of {way.direction} exceeds the {size} {what} of {dataset.name}")
    run = Run(replace(config, device=device.type, precision=precision), shard)
    student = load_clip(config.student, device, precision, config.clip_root)
    reward_clips = [load_clip(name, device, precision, config.clip_root) for name in config.reward_names]
    weights = {clip.name: weights_digest(clip) for clip in [student, *reward_clips]}
    for dataset in datasets:
        features = FrozenFeatures(
            run.folder / "features", dataset, student, weights, shard, config.workers, config.skip_bad_images
        )
        run_dataset(config, features, reward_clips, run)


if __name__ == "__main__":
    run_main(main)

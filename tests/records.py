"""Records as the three tasks write them, made without a model."""

import json

from caption.config import CaptionConfig
from classification.config import ClassificationConfig
from retrieval.config import RetrievalConfig
from rlcf.run.identity import read_identity
from rlcf.run.record_lines import checksum
from rlcf.run.run import Run
from rlcf.run.shard import Shard
from tests.tools import write_picture

CONFIGS = {"classification": ClassificationConfig, "retrieval": RetrievalConfig, "captioning": CaptionConfig}

CLASSES = ["cat", "dog", "owl"]


def classified(index, label, zero_shot, adapted, names=CLASSES, rewards=(0.5, 1.0, 0.25), **changed):
    """A record of classification, with one step on two views."""
    mean = sum(rewards) / 3
    record = {
        "index": index,
        "id": f"{index}.png",
        "label": label,
        "label_name": names[label],
        "status": "ok",
        "zero_shot": zero_shot,
        "zero_shot_name": names[zero_shot],
        "zero_shot_top5": [zero_shot, *(c for c in range(3) if c != zero_shot)],
        "zero_shot_confidence": 0.5 + 0.01 * (index % 40),
        "adapted": adapted,
        "adapted_name": names[adapted],
        "adapted_top5": [adapted, *(c for c in range(3) if c != adapted)],
        "adapted_confidence": 0.55 + 0.01 * (index % 40),
        "names": {str(number): name for number, name in enumerate(names)},
        "steps": [
            {
                "loss": -0.5,
                "views": [0, 7],
                "answers": [[0, 1, 2], [2, 1, 0]],
                "rewards": [list(rewards), list(rewards)[::-1]],
                "advantages": [[r - mean for r in rewards], [r - mean for r in rewards[::-1]]],
            }
        ],
        "seconds": 0.1 + 0.01 * (index % 7),
    }
    return record | changed


def retrieved(index, ranks, **changed):
    """A record of a text that searches three images; text t belongs to image t // 2."""
    images = ["a.png", "b.png", "c.png"]
    own = index // 2
    found = [own if rank == 1 else (own + 1) % 3 for rank in ranks]
    record = {
        "index": index,
        "id": f"{images[own]}#{index % 2}",
        "query": f"text {index}",
        "status": "ok",
        "targets": [own],
        "names": dict(zip("012", images, strict=True)),
        "steps": [{"loss": 0.1, "answers": [[0, 1]], "rewards": [[1.0, None]], "advantages": [[0.5, None]]}],
        "seconds": 0.2,
    }
    for name, rank, place in zip(("zero_shot", "adapted"), ranks, found, strict=True):
        record |= {f"{name}_rank": rank, f"{name}_found": images[place], f"{name}_top10": [place]}
        record[f"{name}_confidence"] = 0.5
    return record | changed


def captioned(index, before, after, rewards, **changed):
    record = {
        "index": index,
        "id": f"{index}.png",
        "references": [f"reference {index}"],
        "status": "ok",
        "zero_shot": before,
        "adapted": after,
        "zero_shot_reward": rewards[0],
        "adapted_reward": rewards[1],
        "steps": [{"candidates": [before, after], "rewards": list(rewards), "advantages": [-0.1, 0.1], "loss": 0.2}],
        "seconds": 0.3,
    }
    return record | changed


def unreadable(index, **changed):
    return {"index": index, "id": f"{index}.png", "status": "unreadable", "reason": "no image"} | changed


def write_run(root, datasets, name="run", task="classification", finished=True, pictures=True, **settings):
    """Write the run folder root/name with the records of each dataset, and their pictures below root/images.

    finished: False leaves the records in the part that a process writes. Returns the folder.
    """
    images = root / "images"
    asked = list(dict.fromkeys(dataset.removesuffix("-t2i").removesuffix("-i2t") for dataset in datasets))
    checkpoint = {"checkpoint": "demo-clipcap"} if task == "captioning" else {}
    config = CONFIGS[task](output=str(root / name), datasets=asked, **checkpoint, **settings)
    with Run(config, Shard()) as run:
        for dataset, records in datasets.items():
            run.records(dataset, [record["id"] for record in records], contents={"samples": "1"}, images=images)
            folder = run.folder_of(dataset)
            lines = [json.dumps(record).encode() for record in records]
            sums = b"".join(checksum(read_identity(folder).key, line, b"") for line in lines)
            (folder / f"records{'' if finished else '.part0'}.sums").write_bytes(sums)
            (folder / f"records{'' if finished else '.part0'}.jsonl").write_bytes(
                b"".join(line + b"\n" for line in lines)
            )
            if finished:
                run.report(dataset, {"n": len(records)})
            for record in records if pictures else []:
                file = images / (record["id"].rpartition("#")[0] or record["id"])
                if record["status"] != "unreadable" and not file.exists():
                    write_picture(file, record["index"])
    return root / name

"""What a run reports of its captions: each episode, and the rewards before and after."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rlcf.errors import UserError
from rlcf.metrics import paired_bootstrap
from rlcf.run.records import Record


@dataclass(frozen=True)
class Outcome:
    """What an episode came to.

    zero_shot, adapted: captions; rewards: of the two, when there are reward models; steps: of each step the candidates
    and their rewards; finite: whether the episode gave an answer.
    """

    zero_shot: str
    adapted: str
    rewards: list[float]
    steps: list[dict[str, Any]]
    finite: bool = True


def describe(outcome: Outcome) -> Record:
    """What a record tells of an episode."""
    record: Record = {"zero_shot": outcome.zero_shot, "adapted": outcome.adapted}
    if outcome.rewards:
        record |= dict(zip(("zero_shot_reward", "adapted_reward"), outcome.rewards, strict=True))
        record["steps"] = outcome.steps
    return record


def count(tally: Counter[str], record: Record) -> str:
    """Add a record to the running reward. Returns what the progress bar tells."""
    if "adapted_reward" not in record:
        return ""
    tally.update(n=1, before=record["zero_shot_reward"], after=record["adapted_reward"])
    return f"reward {tally['before'] / tally['n']:.3f} -> {tally['after'] / tally['n']:.3f}"


def summarise(records: Sequence[Record]) -> dict[str, Any]:
    """The rewards before and after, the gain with its 95% interval. Raises UserError when no image could be read."""
    answered = [r for r in records if r["status"] != "unreadable"]
    if not answered:
        raise UserError("none of the images could be read; records.jsonl tells why")
    summary: dict[str, Any] = {"n": len(answered), "unreadable": len(records) - len(answered)}
    summary |= {"zero_shot": {}, "adapted": {}}
    rewarded = [r for r in answered if "adapted_reward" in r]
    if rewarded:
        before, after = ([r[f"{name}_reward"] for r in rewarded] for name in ("zero_shot", "adapted"))
        summary["zero_shot"]["reward"], summary["adapted"]["reward"] = (sum(v) / len(v) for v in (before, after))
        mean, low, high = paired_bootstrap(before, after)
        summary["reward_gain"] = {"mean": mean, "low": low, "high": high}
        summary["changed_percent"] = 100 * sum(r["zero_shot"] != r["adapted"] for r in answered) / len(answered)
    summary["non_finite"] = sum(r["status"] == "non-finite" for r in answered)
    summary["seconds_per_sample"] = sum(r["seconds"] for r in answered) / len(answered)
    return summary


def as_line(dataset: str, method: str, summary: dict[str, Any]) -> str:
    line = f"{dataset}: n {summary['n']}"
    if method != "none":
        gain = summary["reward_gain"]
        line += f", reward {summary['zero_shot']['reward']:.4f}, {method} {summary['adapted']['reward']:.4f}"
        line += f" (gain {gain['mean']:+.4f}, 95% interval {gain['low']:+.4f} to {gain['high']:+.4f})"
        line += f", {summary['changed_percent']:.0f}% of the captions changed"
    line += f", {summary['seconds_per_sample']:.3f} s an image"
    for count, what in ((summary["non_finite"], "kept zero-shot (not finite)"), (summary["unreadable"], "unreadable")):
        line += f", {count} {what}" if count else ""
    return line

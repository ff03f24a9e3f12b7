"""The training of a captioner's mapper: its loss, its steps and epochs, and the checkpoint that it goes on from."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from caption.files import MAPPER_FILE, TRAINING_FILE
from caption.language_model import LanguageModel
from caption.mapper import MAPPER_KEYS, Mapper, MLPMapper, TransformerMapper, save_mapper
from caption.training.config import TrainConfig
from caption.training.curve import History, write_curve
from caption.training.examples import Examples, batches, gaussian_noise, uniform_noise
from rlcf.clip.weights import read_weights, tensors_in
from rlcf.digests import digest_of_state
from rlcf.errors import UserError
from rlcf.progress import progress_bar
from rlcf.run.files import replacing
from rlcf.run.identity import read_identity

POINTS = 50
"""Points of the training curve in an epoch."""


def caption_loss(lm: LanguageModel, mapper: nn.Module, features: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Mean negative log-likelihood of the captions' tokens, a scalar, nats (ClipCap, section 3).

    features: (N, D), unit length; ids, mask: (N, L), padding where the mask is 0.
    """
    with lm.autocast():
        prefix = mapper(features)
    return -(lm.token_log_likelihood(prefix, ids, mask) * mask).sum() / mask.sum()


def make_mapper(config: TrainConfig, feature_width: int, width: int) -> Mapper:
    torch.manual_seed(config.seed)
    if config.mapper == "mlp":
        return MLPMapper(feature_width, width, config.prefix_length)
    if width % config.heads:
        raise UserError(f"--heads {config.heads} does not divide the language model's width {width}")
    return TransformerMapper(
        feature_width, width, config.prefix_length, config.clip_length, config.layers, config.heads
    )


class Training:
    """A mapper, its optimiser and the epochs that are done. The draws of an epoch depend on (seed, epoch) alone.

    folder: of the run, with its identity; student: the CLIP that the features are of, where that is known.
    """

    def __init__(
        self, config: TrainConfig, lm: LanguageModel, mapper: Mapper, examples: Examples, folder: Path, student: str
    ) -> None:
        self.key = read_identity(folder).key
        self.config, self.lm, self.examples, self.folder, self.student = config, lm, examples, folder, student
        self.mapper = mapper.to(lm.device)
        self.steps_per_epoch = -(-len(examples) // config.batch_size)
        total = config.epochs * self.steps_per_epoch
        if config.warmup >= total:
            raise UserError(f"--warmup {config.warmup} is not below the {total} steps of the training; lower it")
        self.optimiser = torch.optim.AdamW(
            mapper.parameters(), lr=config.lr, weight_decay=config.weight_decay, eps=config.eps
        )
        self.schedule = get_linear_schedule_with_warmup(self.optimiser, config.warmup, total)
        self.scaler = torch.amp.GradScaler(lm.device.type, enabled=lm.precision == "fp16")
        self.epoch = 0
        self.history: History = {"train": [], "validation": []}

    def run_epoch(self) -> float:
        """One pass over the captions. Returns the mean loss.

        Raises UserError when a loss, or what the mapper has become, is not finite; the last checkpoint is kept.
        """
        rng = np.random.default_rng([self.config.seed, self.epoch])
        noise = torch.Generator().manual_seed(int(rng.integers(2**31)))
        progress = progress_bar(
            batches(len(self.examples), self.config.batch_size, rng),
            desc=f"epoch {self.epoch + 1} of {self.config.epochs}",
            total=self.steps_per_epoch,
        )
        losses: list[float] = []
        for chosen in progress:
            features, ids, mask = self.examples.take(self.lm, chosen)
            loss = caption_loss(self.lm, self.mapper, self.disturb(features, noise), ids, mask)
            losses.append(loss.item())
            self._check(math.isfinite(losses[-1]), f"the loss of step {len(losses)}")
            self.optimiser.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimiser)
            self.scaler.update()
            self.schedule.step()
            progress.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
        for part in np.array_split(np.arange(len(losses)), min(POINTS, len(losses))):
            step = self.epoch * self.steps_per_epoch + int(part[-1]) + 1
            self.history["train"].append([step, float(np.mean(np.array(losses)[part]))])
        self._check(all(bool(p.isfinite().all()) for p in self.mapper.parameters()), "what was learnt")
        return float(np.mean(losses))

    def disturb(self, features: Tensor, generator: torch.Generator) -> Tensor:
        """The features that a step learns from: CapDec's with noise."""
        if self.config.method == "clipcap":
            return features
        normal = torch.randn(features.shape, generator=generator).to(features.device)
        if self.config.noise == "gaussian":
            return gaussian_noise(features, normal, self.config.noise_variance)
        uniform = torch.rand(len(features), generator=generator).to(features.device)
        return uniform_noise(features, normal, uniform, self.config.noise_variance)

    @torch.no_grad()
    def validate(self, examples: Examples) -> float | None:
        """Mean loss on other captions, without noise; None when there are none. Raises UserError as `run_epoch`."""
        if not len(examples):
            return None
        total = count = 0.0
        for start in range(0, len(examples), self.config.batch_size):
            chosen = np.arange(start, min(start + self.config.batch_size, len(examples)))
            features, ids, mask = examples.take(self.lm, chosen)
            tokens = float(mask.sum())
            total += tokens * caption_loss(self.lm, self.mapper, features, ids, mask).item()
            count += tokens
        self._check(math.isfinite(total), "the validation loss")
        self.history["validation"].append([(self.epoch + 1) * self.steps_per_epoch, total / count])
        return total / count

    def save(self) -> None:
        """Count the epoch and write ckpt-latest.pt, in the published layout, mapper.safetensors and the loss curve.

        Raises UserError when one of them cannot be written; the checkpoint before is kept then.
        """
        self.epoch += 1
        state = {
            "state_dict": {MAPPER_KEYS + name: tensor for name, tensor in self.mapper.state_dict().items()},
            "epoch": self.epoch,
            "optimizer": self.optimiser.state_dict(),
            "scheduler": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "history": self.history,
            "described": self.described(),
            "key": self.key.hex(),
        }
        state["digest"] = digest_of_state(state)
        with replacing(self.folder / TRAINING_FILE) as temporary, temporary.open("wb") as stream:
            torch.save(state, stream)
        self.export()

    def export(self) -> None:
        """Write mapper.safetensors and the loss curve."""
        save_mapper(self.folder / MAPPER_FILE, self.mapper, self.described(), self.config.save_half)
        write_curve(self.folder, self.history)

    def resume(self) -> None:
        """Go on from ckpt-latest.pt, when there is one. Raises UserError when it is damaged or of another training."""
        file = self.folder / TRAINING_FILE
        if not file.exists():
            return
        state = self._read_state(file)
        weights = {name.removeprefix(MAPPER_KEYS): tensor for name, tensor in tensors_in(state).items()}
        try:
            self.mapper.load_state_dict(weights)
            self.optimiser.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["scheduler"])
            self.scaler.load_state_dict(state["scaler"])
        except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file} is of another version of torch or transformers; choose another --output"
            ) from error
        self.epoch, self.history = state["epoch"], state["history"]
        self.export()  # it may have been stopped before

    def _read_state(self, file: Path) -> dict[str, Any]:
        """The content of ckpt-latest.pt, all of it as `save` wrote it. Raises UserError as `resume`."""
        damaged = UserError(f"{file} is damaged; delete it to train afresh, or choose another --output")
        try:
            state = read_weights(file)
        except UserError as error:
            raise damaged from error
        if not isinstance(state, dict) or state.get("key") != self.key.hex():
            raise UserError(f"{file} is of another training; choose another --output")
        try:
            as_written = state.pop("digest", None) == digest_of_state(state)
        except RecursionError:
            as_written = False
        if not as_written:
            raise damaged
        return state

    def described(self) -> dict[str, Any]:
        names = ("method", "language_model", "mapper", "heads", "end_token")
        described = {name: getattr(self.config, name) for name in names}
        return described | {"student": self.student, "width": self.lm.width, "epoch": self.epoch}

    def _check(self, finite: bool, what: str) -> None:
        if not finite:
            kept = (
                f"{self.folder / TRAINING_FILE} of epoch {self.epoch} is kept" if self.epoch else "nothing is kept yet"
            )
            where = f"{what} in epoch {self.epoch + 1}"
            raise UserError(f"{where} is not finite; {kept}; lower --lr or use --precision fp32")

"""A training run: the mapper, its epochs, and what is saved and told of them."""

import time
from dataclasses import replace

from caption.files import MAPPER_FILE, TRAINING_FILE
from caption.language_model import load_language_model
from caption.training.config import KIND, TrainConfig
from caption.training.examples import Examples, make_examples, split_examples
from caption.training.features import read_features
from caption.training.training import Training, make_mapper
from rlcf.digests import digest_of_tensors
from rlcf.errors import UserError
from rlcf.run.device import resolve_device, resolve_precision
from rlcf.run.folder import logger, open_run_folder
from rlcf.run.identity import keep_identity
from rlcf.run.memory import out_of_memory_told


def run(config: TrainConfig) -> None:
    """Train the mapper that the settings describe."""
    device = resolve_device(config)
    precision = resolve_precision(config, device)
    features = read_features(config.data)
    lm = load_language_model(config.language_model, device, precision)
    kind = KIND[config.method]
    examples = make_examples(lm, features, kind, config.end_token, config.data)
    validation = read_features(config.validation) if config.validation else None
    if validation is not None:
        held_out = make_examples(lm, validation, kind, config.end_token, str(config.validation))
        if held_out.features.shape[1] != examples.features.shape[1]:
            raise UserError(
                f"the features of {config.validation} are {held_out.features.shape[1]} wide, those of {config.data} "
                f"{examples.features.shape[1]}; extract both with the same --student"
            )
    else:
        examples, held_out = split_examples(examples, features, config.validation_share, config.seed)
    mapper = make_mapper(config, examples.features.shape[1], lm.width)
    resolved = replace(config, device=device.type, precision=precision)
    with open_run_folder(resolved, lambda folder: [folder] if (folder / TRAINING_FILE).exists() else []) as folder:
        contents = {
            name: held.digest for name, held in (("features", features), ("validation features", validation)) if held
        }
        contents["weights of the language model"] = digest_of_tensors(lm.model.state_dict())
        keep_identity(folder, resolved, contents, (folder / TRAINING_FILE).exists())
        train(Training(config, lm, mapper, examples, folder, features.student), held_out)


def train(training: Training, held_out: Examples) -> None:
    """The epochs that are left, after each of which the training is saved and told."""
    config = training.config
    training.resume()
    while training.epoch < config.epochs:
        started = time.perf_counter()
        with out_of_memory_told(config):
            loss, validation = training.run_epoch(), training.validate(held_out)
        training.save()
        line = f"epoch {training.epoch} of {config.epochs}: loss {loss:.4f}"
        line += "" if validation is None else f", validation {validation:.4f}"
        line += f", {time.perf_counter() - started:.0f} s"
        logger.info(line)
        print(line, flush=True)
    file, count = training.folder / MAPPER_FILE, len(training.examples)
    print(f"{file}: {config.method}, {training.epoch} epochs, {count} captions")

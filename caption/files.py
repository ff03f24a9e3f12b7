"""The files of a captioner, and where they come from."""

from pathlib import Path

from rlcf.data.command import own_command
from rlcf.errors import UserError
from rlcf.shipped import shipped_folder

MAPPER_FILE, TRAINING_FILE = "mapper.safetensors", "ckpt-latest.pt"
"""Files of a training: the mapper alone, and the state from which the training goes on."""
TRAINED_BY = "scripts/train_clipcap_coco.sh and train_capdec_coco.sh train one"
EXTRACTED_BY = "scripts/extract_coco.sh makes COCO's, caption/extract_features.py those of any list"


def find_checkpoint(path: str) -> Path:
    """The file of a captioner. path: a file, a training run's folder, or the name of a shipped one.

    Raises UserError when there is none.
    """
    file = Path(path).expanduser()
    if not file.exists():
        file = shipped_folder(path) or file
    if not file.exists():
        published = f"'{own_command()} get clipcap capdec' gets published ones"
        raise UserError(f"no captioner {path}; {TRAINED_BY}, {published}")
    if file.is_dir():
        found = [file / name for name in (MAPPER_FILE, TRAINING_FILE) if (file / name).is_file()]
        if not found:
            raise UserError(
                f"{file} holds neither {MAPPER_FILE} nor {TRAINING_FILE}; give a training run's folder ({TRAINED_BY})"
            )
        file = found[0]
    return file


def require_language_model(name: str) -> None:
    """Raises UserError for a language model that is named by the path of a folder which is not there."""
    if name.startswith(("/", ".", "~")) and not Path(name).expanduser().is_dir():
        raise UserError(f"no language model's folder {name}; give a folder, or a Hugging Face name: facebook/opt-125m")

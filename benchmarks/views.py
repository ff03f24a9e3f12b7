"""The views of one image, from its JPEG file to pixels that are ready for the tower, in one process.

The project's views against torchvision's pipeline on Pillow images: a 500 x 375 photograph-like picture, its centre
crop and 63 plain crops.
"""

import sys
import tempfile
from pathlib import Path

from torch import Tensor

if not __package__:  # run as a script: imports start from the project, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks import reference
from benchmarks.common import build, parse, picture, report, row
from benchmarks.measure import measure
from rlcf.adapt.views import Views
from rlcf.errors import run_main
from rlcf.inputs.images import read_image

COUNT = 64


def main(argv: list[str] | None = None) -> None:
    options = parse(__doc__ or "", argv, "views", repeats=20)
    clip = build(options.size, options.device).student
    views = Views(clip.centre_view, clip.size, COUNT)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "picture.jpg"
        picture().save(file, quality=90)

        def torchvision() -> Tensor:
            pixels = reference.make_views(file, COUNT, clip.size[0], clip.preprocess["mean"], clip.preprocess["std"])
            return pixels.to(clip.device)

        def as_bytes() -> Tensor:
            return views(read_image(file), 0)

        def ready() -> Tensor:
            return clip.prepare(as_bytes())

        rows = [
            row(f"63 plain views and the centre crop: {name}", measured)
            for name, fast in (
                ("normalised floats", ready),
                ("uint8 before normalisation", as_bytes),
            )
            for measured in [measure(torchvision, fast, options.repeats, options.device, compare=False)]
        ]
    report(options, rows)


if __name__ == "__main__":
    run_main(main)

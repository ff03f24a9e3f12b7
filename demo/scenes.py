"""Pictures of one or two emoji on a coloured ground, and the English that describes them."""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from demo.art import NAMES, SCENE_OBJECTS, SIDE
from rlcf.errors import UserError

Generator = np.random.Generator

COLOURS = {
    "white": (0.97, 0.97, 0.97),
    "black": (0.10, 0.10, 0.10),
    "red": (0.86, 0.24, 0.22),
    "green": (0.36, 0.70, 0.38),
    "blue": (0.28, 0.46, 0.85),
    "yellow": (0.97, 0.86, 0.35),
    "purple": (0.58, 0.36, 0.72),
    "orange": (0.96, 0.62, 0.27),
}
"""Grounds: name -> RGB in [0, 1]."""

RELATIONS = ("to the left of", "to the right of", "above", "below")
CONVERSE = (1, 0, 3, 2)
_PLACES = ("on the left", "on the right", "at the top", "at the bottom")
_OFFSETS = ((-0.5, 0.0), (0.5, 0.0), (0.0, -0.5), (0.0, 0.5))


@dataclass(frozen=True)
class Scene:
    """Two objects (indices into NAMES), how the first stands to the second (into RELATIONS), the ground's colour."""

    first: int
    second: int
    relation: int
    colour: str

    @property
    def held_out(self) -> bool:
        """A tenth of the ordered pairs is never trained on; they are what scenes are tested with."""
        return (7 * self.first + 3 * self.second) % 10 == 0


def article(name: str) -> str:
    """
    >>> article("owl"), article("dog"), article("grapes")
    ('an owl', 'a dog', 'grapes')
    """
    if name in ("grapes", "scissors", "bread", "cheese", "corn"):
        return name
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def scene_captions(scene: Scene) -> list[str]:
    """Five captions.

    >>> scene_captions(Scene(NAMES.index("dog"), NAMES.index("apple"), 0, "blue"))[:2]
    ['a dog to the left of an apple', 'an apple to the right of a dog']
    """
    first, second = article(NAMES[scene.first]), article(NAMES[scene.second])
    relation, converse = RELATIONS[scene.relation], RELATIONS[CONVERSE[scene.relation]]
    here, there = _PLACES[scene.relation], _PLACES[CONVERSE[scene.relation]]
    return [
        f"{first} {relation} {second}",
        f"{second} {converse} {first}",
        f"{first} {relation} {second} on {article(scene.colour)} background",
        f"{first} {here} and {second} {there}",
        f"there is {first} {relation} {second} and the background is {scene.colour}",
    ]


def sample_scene(rng: Generator, held_out: bool) -> Scene:
    while True:
        first, second = (int(i) for i in rng.choice(len(SCENE_OBJECTS), 2, replace=False))
        scene = Scene(first, second, int(rng.integers(len(RELATIONS))), str(rng.choice(list(COLOURS))))
        if scene.held_out == held_out:
            return scene


def held_out_scenes(n: int, rng: Generator) -> list[Scene]:
    """Scenes of pairs that were never trained on, no two with the same things in the same places.

    Raises UserError for more than there are.
    """
    things, relations = range(len(SCENE_OBJECTS)), range(len(RELATIONS))
    unordered = [Scene(a, b, relation, "white") for a in things for b in things if a < b for relation in relations]
    arrangements = [scene for scene in unordered if scene.held_out and _turned(scene).held_out]
    if n > len(arrangements):
        raise UserError(f"there are {len(arrangements)} different scenes of held-out pairs, not {n}")
    chosen = [arrangements[i] for i in rng.choice(len(arrangements), n, replace=False)]
    chosen = [_turned(scene) if rng.random() < 0.5 else scene for scene in chosen]
    return [replace(scene, colour=str(rng.choice(list(COLOURS)))) for scene in chosen]


def _turned(scene: Scene) -> Scene:
    """The same picture, told from the second thing."""
    return Scene(scene.second, scene.first, CONVERSE[scene.relation], scene.colour)


def draw_singles(drawings: Tensor, colours: list[str], rng: Generator) -> Tensor:
    """drawings: (N, 4, 64, 64) from `art.draw`, one an image. Returns (N, 3, 64, 64) in [0, 1]."""
    n = len(drawings)
    scale = rng.uniform(0.5, 0.95, n)
    offset = rng.uniform(-1.0, 1.0, (n, 2)) * (1.0 - scale[:, None]) * 0.8
    return _lay(_ground(colours, rng), _place(drawings, scale, offset, rng))


def draw_scenes(first: Tensor, second: Tensor, scenes: list[Scene], rng: Generator) -> Tensor:
    """first, second: (N, 4, 64, 64), the drawings of each scene's two objects. Returns (N, 3, 64, 64) in [0, 1]."""
    image = _ground([scene.colour for scene in scenes], rng)
    side = np.array([_OFFSETS[scene.relation] for scene in scenes])
    for drawings, sign in ((first, 1.0), (second, -1.0)):
        jitter = rng.uniform(-0.07, 0.07, side.shape) + rng.uniform(-0.25, 0.25, side.shape) * (side == 0)
        scale = rng.uniform(0.42, 0.52, len(scenes))
        image = _lay(image, _place(drawings, scale, sign * side + jitter, rng))
    return image


def _ground(colours: list[str], rng: Generator) -> Tensor:
    rgb = np.array([COLOURS[colour] for colour in colours]) + rng.uniform(-0.05, 0.05, (len(colours), 3))
    return torch.from_numpy(rgb.clip(0, 1)).float()[:, :, None, None].expand(-1, -1, SIDE, SIDE)


def _place(drawings: Tensor, scale: np.ndarray, offset: np.ndarray, rng: Generator) -> Tensor:
    """Each drawing at `scale` of the image's side, its centre at `offset` in [-1, 1], turned a little or mirrored."""
    angle = rng.uniform(-math.pi / 12, math.pi / 12, len(drawings))
    mirror = rng.choice([-1.0, 1.0], len(drawings))
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    rows = [mirror * cos, mirror * sin, -mirror * (cos * offset[:, 0] + sin * offset[:, 1])]
    rows += [-sin, cos, sin * offset[:, 0] - cos * offset[:, 1]]
    theta = torch.from_numpy(np.stack(rows, axis=1)).float().view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(drawings), 4, SIDE, SIDE], align_corners=False)
    return F.grid_sample(drawings, grid, align_corners=False)


def _lay(image: Tensor, drawings: Tensor) -> Tensor:
    return drawings[:, :3] + image * (1.0 - drawings[:, 3:])

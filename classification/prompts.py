"""Prompts as people write them."""

import re

from rlcf.errors import UserError


def split_prompt(prompt: str, position: str = "end") -> tuple[str, str]:
    """The words of a prompt with {} for the class name, and the place of the name among them.

    position: the one that was asked for otherwise. Raises UserError for a prompt that says it twice or in another place
    than the end, the middle or the front of the words.

    >>> split_prompt("a photo of a {}."), split_prompt("{} in a photo")
    (('a photo of a', 'end'), ('in a photo', 'front'))
    """
    parts = re.split(r"\{\w*\}", prompt.strip())
    if len(parts) != 2 or re.search("[{}]", "".join(parts)):
        raise UserError(f"--prompt '{prompt}' must hold one {{}}, where the class name stands")
    before, after = parts[0].split(), re.sub(r"^\s*\.$|\.$", "", parts[1]).split()
    words = [*before, *after]
    place = {0: "front", len(words) // 2: "middle", len(words): "end"}.get(len(before))
    if not after:
        place = "end"
    if place is None or (parts[1][:1] not in ("", " ", ".") and after):
        raise UserError(
            f"--prompt '{prompt}' has the class name in a place of its own; it may stand behind all words, before "
            "them, or behind the first half of them"
        )
    if position not in ("end", place):
        raise UserError(f"--prompt '{prompt}' and --class-position {position} name two places; leave one out")
    return " ".join(words), place

"""The texts of classes, whose features stand for them."""

from open_clip import OPENAI_IMAGENET_TEMPLATES

from rlcf.clip.prompted_text import prompt_text


def class_texts(classname: str, prompt: str, position: str = "end", templates: str = "single") -> list[str]:
    """The texts of a class; the mean of their features is the feature of the class.

    prompt: the words around the class name. position: the place of the name among them, as in `prompt_text`.
    templates: "single" for the prompt, "imagenet80" for the 80 templates of CLIP's authors in its place.

    >>> class_texts("tench", "a photo of a")
    ['a photo of a tench.']
    """
    if templates == "imagenet80":
        return [template(classname) for template in OPENAI_IMAGENET_TEMPLATES]
    return [prompt_text(prompt, classname, position)]

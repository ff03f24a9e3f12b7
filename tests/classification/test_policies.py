"""Two policies of one model never see each other, and leave the model as it was loaded."""

import pytest
import torch

from tests.tools import copied, same

POLICIES = {
    "prompt": {"tune": "prompt"},
    "prompt, three at once": {"tune": "prompt", "images_at_once": 3},
    "image-encoder": {"tune": "image-encoder"},
    "image-encoder, bn_prior": {"tune": "image-encoder", "bn_prior": 4.0},
    "norm": {"tune": "norm"},
    "norm, frozen": {"tune": "norm", "batchnorm": "frozen"},
    "norm, three at once": {"tune": "norm", "images_at_once": 3},
    "norm, three at once, bn_prior": {"tune": "norm", "images_at_once": 3, "bn_prior": 4.0},
    "published-norm": {"tune": "norm", "batchnorm": "published-norm"},
    "published-norm, three at once": {"tune": "norm", "batchnorm": "published-norm", "images_at_once": 3},
    "zeroshot": {"method": "zeroshot"},
}
VIT = [name for name in POLICIES if "bn_prior" not in name and "published" not in name and "frozen" not in name]


@pytest.fixture
def images():
    """The views of three images, (10, 3, 32, 32) each."""
    return list(torch.randint(0, 256, (3, 10, 3, 32, 32), dtype=torch.uint8))


def answers(classifier, images):
    """The logits of each image before and after."""
    size, found = classifier.config.images_at_once, []
    for begin in range(0, len(images), size):
        found += classifier.adapt(list(enumerate(images))[begin : begin + size])
    return torch.stack([torch.stack([outcome.before, outcome.after]) for outcome in found])


def of(build, name, kind, student):
    return build(kind=kind, student=student, **POLICIES[name])


class Watched:
    """A model's weights, the names that require gradients, its layers, and those in training mode."""

    def __init__(self, model):
        self.model, self.weights = model, copied(model)
        self.rest = self._rest()

    def _rest(self):
        parameters = [(name, parameter, parameter.requires_grad) for name, parameter in self.model.named_parameters()]
        modules = [(name, layer, type(layer), layer.training) for name, layer in self.model.named_modules()]
        own = [sorted(vars(layer)) for layer in self.model.modules()]
        return parameters, modules, own

    def __eq__(self, other):
        return NotImplemented

    def unchanged(self):
        parameters, modules, own = self._rest()
        then_parameters, then_modules, then_own = self.rest
        identical = all(a[1] is b[1] for a, b in zip(parameters + modules, then_parameters + then_modules, strict=True))
        flags = [(p[0], p[2]) for p in parameters] == [(p[0], p[2]) for p in then_parameters]
        flags &= [(m[0], *m[2:]) for m in modules] == [(m[0], *m[2:]) for m in then_modules]
        no_gradients = all(parameter.grad is None for parameter in self.model.parameters())
        return identical and flags and own == then_own and no_gradients and same(copied(self.model), self.weights)


CASES = [("vit", name) for name in VIT] + [("resnet", name) for name in POLICIES]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_after_its_images_a_model_is_as_it_was_loaded(build, clip, images, kind, name):
    student = clip(kind)
    model = Watched(student.model)
    classifier = of(build, name, kind, student)
    assert model.unchanged()  # making a policy changes nothing
    answers(classifier, images)
    assert model.unchanged()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_an_exception_within_leaves_the_model_as_it_was_loaded(build, clip, images, kind, name, monkeypatch):
    if name == "zeroshot":
        name = "prompt"
    student = clip(kind)
    model = Watched(student.model)
    classifier = of(build, name, kind, student)
    monkeypatch.setattr(classifier.policy, "answer", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        answers(classifier, images)
    assert model.unchanged()


@pytest.mark.parametrize(("kind", "first"), CASES)
def test_each_policy_answers_as_on_a_fresh_model_whatever_adapted_before(build, clip, images, kind, first):
    student = clip(kind)
    names = VIT if kind == "vit" else list(POLICIES)
    made = {name: of(build, name, kind, student) for name in names}  # all of one model
    answers(made[first], images)
    place = names.index(first)
    for name in (*names[place:], *names[:place])[:4]:  # itself, and the three that come next
        assert torch.equal(answers(made[name], images), FRESH(build, clip, images, kind, name)), name


KNOWN = {}


def FRESH(build, clip, images, kind, name):
    """The answers on a model of its own, computed once."""
    if (kind, name) not in KNOWN:
        KNOWN[kind, name] = answers(of(build, name, kind, clip(kind)), images)
    return KNOWN[kind, name]

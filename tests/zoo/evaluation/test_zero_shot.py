"""Zero-shot classification and retrieval metrics, beside open_clip and beside brute force."""

from __future__ import annotations

import copy
import math
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor

import zoo
from support.peer import randomized
from zoo.evaluation.calibration import MAX_SCALE, fit
from zoo.evaluation.templates import template_set, template_sets
from zoo_core.errors import InputError, TruncatedTextWarning, UnknownNameError

LABELS = ["cat", "dog", "a {} in braces", "zebra crossing"]


@pytest.fixture(scope="module", params=["softmax", "sigmoid"])
def model(request: pytest.FixtureRequest) -> Any:
    bias = ["init_logit_bias=-3.0"] if request.param == "sigmoid" else []
    overrides = ["vision.layers=1", "text.layers=1", *bias]
    return randomized(zoo.build("digits-tiny", overrides=overrides)).eval()


@pytest.fixture(scope="module")
def images(model: Any) -> Tensor:
    return torch.randn(7, 3, *model.visual.image_size, generator=torch.Generator().manual_seed(0))


# Templates


def test_the_sets_of_templates_are_those_of_the_field() -> None:
    assert template_sets() == ("imagenet-7", "imagenet-80")
    for name, theirs in (("imagenet-80", OPENAI_IMAGENET_TEMPLATES), ("imagenet-7", SIMPLE_IMAGENET_TEMPLATES)):
        assert [one.replace("{}", "cat") for one in template_set(name)] == [one("cat") for one in theirs]


@pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")
@pytest.mark.parametrize("name", ["imagenet-7", "imagenet-80"])
def test_class_features_are_the_peers(model: Any, name: str) -> None:
    labels = ["cat", "dog", "zebra crossing"]
    ours = zoo.ZeroShotClassifier(model, labels, name)
    theirs = open_clip.build_zero_shot_classifier(
        model, model.tokenizer, labels, [one.format for one in template_set(name)], num_classes_per_batch=2
    )
    torch.testing.assert_close(ours.class_features.T, theirs, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::zoo_core.errors.TruncatedTextWarning")
def test_the_names_of_imagenet_that_the_field_uses_give_the_peers_weights(model: Any, images: Tensor) -> None:
    """`missile` and `sunglasses` stand there twice, so that without ids no published number could be computed."""
    names = open_clip.IMAGENET_CLASSNAMES
    with pytest.raises(InputError, match="labels: missile, sunglasses are there twice"):
        zoo.ZeroShotClassifier(model, names, "imagenet-7")
    ours = zoo.ZeroShotClassifier(model, dict(enumerate(names)), "imagenet-7")
    theirs = open_clip.build_zero_shot_classifier(model, model.tokenizer, names, SIMPLE_IMAGENET_TEMPLATES, 100)
    assert ours.class_features.shape == (1000, model.config.embed_dim)
    torch.testing.assert_close(ours.class_features.T, theirs, rtol=0, atol=1e-6)
    logits = model.encode_image(images, normalize=True) @ theirs
    assert torch.equal(ours.probabilities(images).argmax(dim=1), logits.argmax(dim=1))
    assert [int(ranked[0][0]) for ranked in ours.top(images, k=1)] == logits.argmax(dim=1).tolist()
    first, second = (index for index, name in enumerate(names) if name == "missile")
    assert torch.equal(ours.probabilities(images)[:, first], ours.probabilities(images)[:, second])


def test_a_class_with_several_names_is_the_mean_of_all_its_captions(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = {"n1": ["Egyptian cat", "mau"], "n2": "dog", "n3": ("eel",)}
    classifier = zoo.ZeroShotClassifier(model, labels, ["a {}", "the {}"])
    assert classifier.labels == ["n1", "n2", "n3"]
    assert classifier.names == [("Egyptian cat", "mau"), ("dog",), ("eel",)]
    captions = ["a Egyptian cat", "the Egyptian cat", "a mau", "the mau"]
    with torch.no_grad():
        expected = model.encode_text(captions, normalize=True).double().mean(dim=0)
    torch.testing.assert_close(
        classifier.class_features[0].double(), torch.nn.functional.normalize(expected, dim=-1), rtol=0, atol=1e-6
    )
    plain = zoo.ZeroShotClassifier(model, ["dog", "eel"], ["a {}", "the {}"])
    torch.testing.assert_close(classifier.class_features[1:], plain.class_features)
    monkeypatch.setattr("zoo.evaluation.zero_shot.PROMPTS", 3)
    portions = zoo.ZeroShotClassifier(model, labels, ["a {}", "the {}"]).class_features
    torch.testing.assert_close(portions, classifier.class_features)


def test_class_features_do_not_depend_on_how_many_are_encoded_at_a_time(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = zoo.ZeroShotClassifier(model, LABELS, "imagenet-7").class_features
    monkeypatch.setattr("zoo.evaluation.zero_shot.PROMPTS", 15)
    torch.testing.assert_close(zoo.ZeroShotClassifier(model, LABELS, "imagenet-7").class_features, whole)


def test_templates_may_be_functions_as_the_peers_are(model: Any) -> None:
    ours = zoo.ZeroShotClassifier(model, LABELS, [lambda label: f"a {label}!", "the {}"])
    torch.testing.assert_close(
        ours.class_features, zoo.ZeroShotClassifier(model, LABELS, ["a {}!", "the {}"]).class_features
    )
    alone = zoo.ZeroShotClassifier(model, (label for label in LABELS), SIMPLE_IMAGENET_TEMPLATES[1])
    theirs = open_clip.build_zero_shot_classifier(model, model.tokenizer, LABELS, SIMPLE_IMAGENET_TEMPLATES[1:2])
    torch.testing.assert_close(alone.class_features.T, theirs, rtol=0, atol=1e-6)


def test_captions_that_were_cut_are_told_once_for_all_portions(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.evaluation.zero_shot.PROMPTS", 2)
    labels = ["cat", "word " * 90, "dog", "more " * 90]
    with pytest.warns(TruncatedTextWarning) as told:
        zoo.ZeroShotClassifier(model, labels, ["a {}", "one {}"])
    (warning,) = told
    assert str(warning.message).startswith("4 of 8 captions have more than 20 tokens and were cut; the first of them: ")
    assert warning.filename == __file__
    with pytest.raises(InputError, match="captions have more than 20 tokens"):
        zoo.ZeroShotClassifier(model, labels, overflow="error")


def test_class_features_may_become_weights_that_are_trained(model: Any) -> None:
    weight = torch.nn.Parameter(zoo.ZeroShotClassifier(model, LABELS).class_features)
    weight.square().sum().backward()
    with torch.no_grad():
        weight.add_(1)


def test_a_model_that_was_cast_afterwards_is_still_served(model: Any, images: Tensor) -> None:
    classifier = zoo.ZeroShotClassifier(copy.deepcopy(model), LABELS)
    similar = classifier.similarity(images)
    classifier.model.to(torch.bfloat16)
    torch.testing.assert_close(classifier.similarity(images), similar, rtol=0, atol=0.02)
    assert classifier.probabilities(images).dtype == torch.float32


def test_a_label_may_hold_braces(model: Any) -> None:
    found = zoo.ZeroShotClassifier(model, LABELS, ["this is {}", "{}!"]).class_features[2]
    captions = model.encode_text(["this is a {} in braces", "a {} in braces!"], normalize=True)
    torch.testing.assert_close(found, torch.nn.functional.normalize(captions.mean(dim=0), dim=-1))


# Probabilities


def test_probabilities_are_those_of_the_model(model: Any, images: Tensor) -> None:
    found = zoo.ZeroShotClassifier(model, LABELS).probabilities(images)
    captions = [f"a photo of a {label}" for label in LABELS]
    with torch.inference_mode():
        torch.testing.assert_close(found, model.probabilities(images, captions))


def test_the_likeliest_come_first_and_no_more_than_asked(model: Any, images: Tensor) -> None:
    classifier = zoo.ZeroShotClassifier(model, LABELS)
    probabilities = classifier.probabilities(images)
    for row, ranked in zip(probabilities, classifier.top(images, k=3), strict=True):
        best = row.topk(3)
        assert [label for label, _ in ranked] == [LABELS[index] for index in best.indices]
        assert [share for _, share in ranked] == best.values.tolist()
    assert [len(ranked) for ranked in classifier.top(images, k=9)] == [len(LABELS)] * 7


def test_a_stream_gives_what_one_call_gives_and_reads_no_more_than_a_batch_ahead(model: Any, images: Tensor) -> None:
    classifier = zoo.ZeroShotClassifier(model, LABELS)
    taken = 0

    def source() -> Any:
        nonlocal taken
        for image in images:
            taken += 1
            yield image

    stream = classifier.stream(source(), k=2, batch_size=3)
    first = next(stream)
    assert taken == 3
    everything = [first, *stream]
    assert [[label for label, _ in one] for one in everything] == [
        [label for label, _ in one] for one in classifier.top(images, k=2)
    ]


def test_similarity_is_the_cosine(model: Any, images: Tensor) -> None:
    found = zoo.ZeroShotClassifier(model, LABELS).similarity(images)
    assert found.abs().max() <= 1 + 1e-6
    torch.testing.assert_close(found, model.similarity(images, [f"a photo of a {label}" for label in LABELS]))


REFUSED = {
    "one label for a softmax": (["cat"], "a {}", "labels: expected at least two to choose from, found 1"),
    "twice": (["cat", "dog", "cat"], "a {}", "labels: cat is there twice; give each label once, or, where"),
    "two of them twice": (
        ["a", "b"] * 2,
        "a {}",
        r"labels: a, b are there twice; .* such as dict\(enumerate\(labels\)\)",
    ),
    "a set": ({"cat", "dog"}, "a {}", "labels: expected a list of strings, in the order of the scores, found {"),
    "no name": (
        {"cat": 1, "dog": 2},
        "a {}",
        "labels: expected a name or a list of names for each id, found 1 for 'cat'",
    ),
    "no names": (
        {"cat": [], "dog": "a"},
        "a {}",
        r"expected a name or a list of names for each id, found \[\] for 'cat'",
    ),
    "an id that is none": ({None: "cat", "dog": "a"}, "a {}", "found 'cat' for None"),
    "ids that are one": ({1: "cat", "1": "dog"}, "a {}", "labels: two ids are the same as strings"),
    "one id for a softmax": ({"a": ["cat", "dog"]}, "a {}", "labels: expected at least two to choose from, found 1"),
    "a string": ("cat", "a {}", "labels: expected a list of strings, in the order of the scores, found 'cat'"),
    "numbers": ([1, 2], "a {}", r"labels: expected a list of strings, in the order of the scores, found \[1, 2\]"),
    "no place": (LABELS, ["a {}", "a photo"], "template: '{}' has to stand where the label goes, found 'a photo'"),
    "no string": (LABELS, [lambda _: 3], "must make a string of 'cat', found int"),
    "a number for a template": (LABELS, [3], "template: expected a caption with '{}' in it or a function, found 3"),
    "no templates": (LABELS, [], "templates: expected at least one caption with '{}' in it, found none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_classified_is_refused(case: str) -> None:
    labels, templates, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        zoo.ZeroShotClassifier(zoo.build("digits-tiny"), labels, templates)


def test_an_unknown_set_of_templates_is_told_with_the_nearest(model: Any) -> None:
    with pytest.raises(UnknownNameError, match="no set of templates 'imagenet-81', did you mean 'imagenet-80'"):
        zoo.ZeroShotClassifier(model, LABELS, "imagenet-81")


def test_k_of_nothing_is_refused(model: Any, images: Tensor) -> None:
    with pytest.raises(InputError, match="k must be at least 1, found 0"):
        zoo.ZeroShotClassifier(model, LABELS).top(images, k=0)


def test_batches_of_nothing_are_refused(model: Any, images: Tensor) -> None:
    with pytest.raises(InputError, match="batch_size must be at least 1, found 0"):
        next(zoo.ZeroShotClassifier(model, LABELS).stream(images, batch_size=0))


# Calibration


def drawn(scale: float, bias: float | None, count: int = 4000) -> tuple[Tensor, Tensor]:
    """Return cosines, and labels drawn with the probabilities of a scale and a bias."""
    generator = torch.Generator().manual_seed(1)
    cosines = torch.rand(count, 5, generator=generator, dtype=torch.float64) * 0.4
    if bias is None:
        return cosines, torch.multinomial((cosines * scale).softmax(-1), 1, generator=generator)[:, 0]
    odds = (cosines * scale + bias).exp()
    return cosines, torch.multinomial(odds / odds.sum(-1, keepdim=True), 1, generator=generator)[:, 0]


def test_the_scale_of_a_softmax_is_found_again() -> None:
    found = fit(*drawn(12.0, None), "softmax")
    assert math.isclose(found.scale, 12.0, rel_tol=0.1)
    assert found.bias == 0


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
def test_no_other_scale_or_bias_makes_the_images_likelier(scoring: Any) -> None:
    cosines, targets = drawn(8.0, -1.0)
    found = fit(cosines, targets, scoring)

    def loss(scale: float, bias: float) -> float:
        logits = cosines * scale + bias
        if scoring == "softmax":
            return -logits.log_softmax(-1)[torch.arange(len(targets)), targets].mean().item()
        right = torch.zeros_like(logits).scatter_(1, targets[:, None], 1)
        chances = logits.sigmoid()
        return -(right * chances.log() + (1 - right) * (1 - chances).log()).mean().item()

    assert math.isclose(loss(found.scale, found.bias), found.loss, rel_tol=1e-9)
    for scale, bias in ((1.02, 0.0), (0.98, 0.0), (1.0, 0.05), (1.0, -0.05)):
        if scoring == "sigmoid" or not bias:
            assert loss(found.scale * scale, found.bias + bias) > found.loss


@pytest.mark.parametrize(("gap", "other"), [(1e-5, 0.0), (0.001, 0.3), (-1.0, 0.0), (-0.5, 0.5)])
def test_where_every_image_is_told_apart_or_wrong_the_fit_is_the_best_of_the_scales_allowed(
    gap: float, other: float
) -> None:
    """The cosine of each right label is above the others by the gap, so that the likeliest scale is a bound."""
    scale = 1e4 if gap > 0 else 0.01
    cosines = torch.eye(4, dtype=torch.float64) * gap + other
    softmax = fit(cosines, torch.arange(4), "softmax")
    assert math.isclose(softmax.scale, scale, rel_tol=1e-12)
    assert math.isclose(softmax.loss, math.log1p(3 * math.exp(-scale * gap)), rel_tol=1e-9)
    sigmoid = fit(cosines, torch.arange(4), "sigmoid")
    assert math.isclose(sigmoid.scale, scale, rel_tol=1e-12)
    biases = sigmoid.bias + torch.linspace(-1, 1, 41, dtype=torch.float64)
    right, wrong = F.logsigmoid(scale * (gap + other) + biases), F.logsigmoid(-scale * other - biases)
    losses = -(right + 3 * wrong) / 4
    assert losses.argmin() == 20
    assert math.isclose(sigmoid.loss, losses[20].item(), rel_tol=1e-9)


def test_images_that_are_told_apart_need_no_larger_scale_than_tells_them_surely() -> None:
    for scoring in ("softmax", "sigmoid"):
        fitted = fit(torch.eye(4, dtype=torch.float64), torch.arange(4), scoring)
        assert fitted.scale <= MAX_SCALE
        assert 0 <= fitted.loss < 1e-12


def test_images_that_are_all_alike_have_the_chance_of_a_label_among_labels() -> None:
    cosines, targets = torch.full((6, 4), 0.3, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 0, 1])
    fitted = fit(cosines, targets, "sigmoid")
    assert math.isclose(fitted.scale * 0.3 + fitted.bias, math.log(1 / 3), rel_tol=1e-6)
    assert math.isclose(fitted.loss, math.log(4) - 0.75 * math.log(3), rel_tol=1e-9)  # of one event in four
    assert math.isclose(fit(cosines, targets, "softmax").loss, math.log(4), rel_tol=1e-9)


def test_after_calibration_probabilities_are_those_of_the_fit_and_the_ranking_stays(model: Any, images: Tensor) -> None:
    classifier = zoo.ZeroShotClassifier(model, LABELS)
    before = classifier.probabilities(images)
    features = model.encode_image(images, normalize=True).detach()
    found = classifier.calibrate(features, [0, 1, 2, 3, 0, 1, 2])
    after = classifier.probabilities(images)
    logits = classifier.similarity(images) * found.scale + found.bias
    expected = logits.softmax(-1) if model.scoring == "softmax" else logits.sigmoid()
    torch.testing.assert_close(after, expected)
    assert not torch.allclose(after, before)
    assert torch.equal(after.argsort(dim=-1), before.argsort(dim=-1))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1], "expected a label's number for each of 7 images, found \\[2\\]"),
        ([0, 1, 2, 3, 4, 0, 0], "targets run from 0 to 4; there are labels 0 to 3"),
        ([0.5] * 7, "must be a list or a tuple .each entry a whole number., a tensor or an array"),
    ],
)
def test_targets_that_do_not_fit_are_refused(model: Any, images: Tensor, targets: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.ZeroShotClassifier(model, LABELS).calibrate(images, targets)


def test_the_slopes_of_both_likelihoods_are_those_of_autograd() -> None:
    from zoo.evaluation.calibration import _sigmoid, _softmax

    cosines, targets = drawn(8.0, -1.0, 50)
    for likelihood, numbers in ((_softmax, [3.0]), (_sigmoid, [3.0, -0.7])):
        at = torch.tensor(numbers, dtype=torch.float64)
        loss, slope, curvature = likelihood(at, cosines, targets)
        own = lambda one: likelihood(one, cosines, targets)[0]  # noqa: B023, E731
        torch.testing.assert_close(slope, torch.autograd.functional.jacobian(own, at))
        torch.testing.assert_close(curvature, torch.autograd.functional.hessian(own, at))
        assert loss > 0


# Retrieval


def brute_force(similar: Tensor, right: Tensor, k: int) -> float:
    """Return recall at k with a full sort, query by query; wrong answers go first among equals."""
    hits = []
    for row, wanted in zip(similar.tolist(), right.tolist(), strict=True):
        order = sorted(range(len(row)), key=lambda one: (-row[one], wanted[one]))
        hits.append(any(wanted[one] for one in order[:k]))
    return sum(hits) / len(hits)


@settings(deadline=None, max_examples=60)
@given(
    owner=st.lists(st.integers(0, 5), min_size=1, max_size=25),
    chunk=st.integers(1, 9),
    seed=st.integers(0, 5),
    coarse=st.booleans(),
)
def test_recall_is_that_of_a_full_sort(owner: list[int], chunk: int, seed: int, coarse: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    axes = torch.cat([torch.eye(3), -torch.eye(3), torch.tensor([[0.6, 0.8, 0.0]])]).double()  # many are as near

    def draw(count: int) -> Tensor:
        if coarse:
            return axes[torch.randint(len(axes), (count,), generator=generator)]
        return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator, dtype=torch.float64))

    images, texts, belongs = draw(6), draw(len(owner)), torch.tensor(owner)
    found = zoo.retrieval_metrics(images, texts, belongs, ks=(1, 3, 5), chunk=chunk)
    right = torch.arange(6)[:, None] == belongs
    similar = images @ texts.T
    asked = sorted(set(owner))
    for k in (1, 3, 5):
        assert math.isclose(found.image_to_text.recall[k], brute_force(similar[asked], right[asked], k))
        assert math.isclose(found.text_to_image.recall[k], brute_force(similar.T, right.T, k))


def test_ranks_of_known_neighbours() -> None:
    images = torch.eye(3)
    texts = torch.tensor([[1.0, 0, 0], [0.96, 0.28, 0], [0.8, 0, 0.6]])  # the second and third are nearer to image 0
    found = zoo.retrieval_metrics(images, texts, ks=(1, 2, 3))
    assert found.text_to_image.recall == {1: 1 / 3, 2: 1.0, 3: 1.0}
    assert (found.text_to_image.mean_rank, found.text_to_image.median_rank) == (5 / 3, 2.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((torch.zeros(2, 3), torch.zeros(2, 4)), "expected image features"),
        ((torch.zeros(2, 3), torch.zeros(2, 3, 1)), "expected image features"),
        ((torch.zeros(2, 3, 1), torch.zeros(2, 3)), "expected image features"),
        (
            (torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([0.0, 1.0])),
            "expected an image's number for each of 2 texts",
        ),
        ((torch.zeros(2, 3), torch.zeros(2, 3), [0, 2]), "expected numbers from 0 to 1 for 2 texts"),
        ((torch.zeros(2, 3), torch.zeros(0, 3), []), "expected (an image's number|numbers from 0 to 1)"),
        ((torch.zeros(2, 3), torch.zeros(3, 3)), "found 2 images and 3 texts; say with image_of_text whose the texts"),
        ((torch.zeros(2, 3), torch.zeros(3, 3), [0, 1, 2]), "expected numbers from 0 to 1 for 3 texts"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), [0]), "expected an image's number for each of 2 texts"),
        ((torch.zeros(2, 3), torch.zeros(2, 3), [0, -1]), "expected numbers from 0 to 1"),
        ((torch.eye(3)[:2], torch.eye(3)[:2] * 3), "text_features: expected unit norms, but row 0 has 3; encode with"),
        (
            (torch.tensor([[1.0], [math.nan]]), torch.ones(2, 1)),
            "image_features: expected unit norms, but row 1 has nan",
        ),
        ((torch.eye(2, device="meta"), torch.eye(2)), "image features are on meta, text features on cpu"),
    ],
)
def test_features_that_do_not_fit_each_other_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        zoo.retrieval_metrics(*arguments)


@pytest.mark.parametrize("options", [{"ks": []}, {"ks": [0]}, {"ks": [3, 0]}, {"chunk": 0}, {"chunk": -1}])
def test_a_number_of_nearest_answers_or_a_tile_of_none_is_refused(options: Any) -> None:
    with pytest.raises(InputError, match="expected ks and chunk of 1 or more"):
        zoo.retrieval_metrics(torch.eye(3), torch.eye(3), **options)


def test_the_row_whose_norm_is_not_1_is_named_in_any_tile() -> None:
    features = torch.eye(5)
    features[3] *= 2
    features[4] *= 3
    for chunk in (1, 2, 3, 5):
        with pytest.raises(InputError, match=r"image_features: expected unit norms, but row 3 has 2;"):
            zoo.retrieval_metrics(features, torch.eye(5), chunk=chunk)


def test_a_norm_may_be_as_far_from_1_as_the_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.evaluation.retrieval.NORM_TOLERANCE", 0.25)
    assert zoo.retrieval_metrics(torch.eye(3) * 1.25, torch.eye(3) * 0.75).text_to_image.mean_rank == 1
    with pytest.raises(InputError, match=r"row 0 has 1\.251"):
        zoo.retrieval_metrics(torch.eye(3) * 1.251, torch.eye(3))


def test_the_median_of_an_even_number_of_ranks_is_the_mean_of_the_middle_two() -> None:
    images = torch.nn.functional.normalize(torch.tensor([[1.0, 0], [1, 0.1], [1, 0.2], [1, 0.3]]))
    found = zoo.retrieval_metrics(images, images[0].expand(4, 2), ks=(1, 4))
    assert found.text_to_image.mean_rank == found.text_to_image.median_rank == 2.5  # of ranks 1, 2, 3 and 4
    assert found.text_to_image.recall == {1: 0.25, 4: 1.0}


def test_features_in_half_precision_are_compared_in_float32() -> None:
    generator = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(60, 8, generator=generator)).bfloat16() for _ in "ab")
    assert zoo.retrieval_metrics(images, texts) == zoo.retrieval_metrics(images.float(), texts.float())


def test_recall_is_that_at_one_five_and_ten_where_no_k_is_given() -> None:
    features = torch.eye(12)
    for direction in vars(zoo.retrieval_metrics(features, features)).values():
        assert direction.recall == {1: 1.0, 5: 1.0, 10: 1.0}

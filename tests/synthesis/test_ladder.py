"""The ladder beyond CycleGAN: each finds a blob from image labels alone, resumes, and answers alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from fewmask.core.errors import ConfigError, DataError, RunError, ShapeError
from fewmask.core.run import Run
from fewmask.core.seed import stream
from fewmask.data.augment import StrongAugment
from fewmask.data.augment_spatial import SpatialRanges
from fewmask.data.batches import Stream
from fewmask.objectives.attentionmask import MaskWeights
from fewmask.objectives.displacement import DisplacementWeights
from fewmask.objectives.wasserstein import CriticSteps
from fewmask.synthesis.healer import image_scores
from fewmask.synthesis.healthy import Domains, Healthy
from fewmask.synthesis.ladder import (
    DisplacementSettings,
    FixedPointSettings,
    MaskHeadSettings,
    VaganSettings,
    train_displacement,
    train_fixed_point,
    train_mask_head,
    train_vagan,
)
from fewmask.training.launch import launch

NETS = {"widths": (6, 12, 24), "batch": 4}
CRITIC = {"critic_widths": (8, 16, 32), "lr": 2e-3}
STEPS = CriticSteps(usual=3, many=15, first=5, every=1000)
SMALL = {"images": 24, "batch": 4, "widths": (4, 6), "lr": 2e-3}
FEW = CriticSteps(usual=1, many=2, first=2, every=4)

TINY = [
    (train_mask_head, MaskHeadSettings(judge_widths=(4,), **SMALL)),
    (train_vagan, VaganSettings(critic_widths=(4, 6), steps=FEW, **SMALL)),
    (train_fixed_point, FixedPointSettings(critic_widths=(4, 6), critic_steps=2, **SMALL)),
    (train_displacement, DisplacementSettings(critic_widths=(4, 6), steps=FEW, **SMALL)),
]
NAMES = ["mask head", "vagan", "fixed point", "displacement"]

ROWS, COLUMNS = np.mgrid[:32, :32]


def smooth(count, name):
    """Planes of grey with a little noise, (N, 32, 32)."""
    chance = stream(0, name)
    down, right, grey = chance.uniform(-0.4, 0.4, (3, count, 1, 1))
    planes = down * (ROWS / 32 - 0.5) + right * (COLUMNS / 32 - 0.5) + grey / 2 - 0.3
    return planes + chance.normal(0, 0.03, (count, 32, 32))


def slices(values):
    return np.clip(values, -1, 1).astype(np.float32)[:, None]


def blobs(count, name):
    """Diseased slices and where the one bright blob is."""
    chance = stream(1, name)
    y, x = chance.uniform(6, 26, (2, count, 1, 1))
    mask = (ROWS - y) ** 2 + (COLUMNS - x) ** 2 < chance.uniform(3, 5, (count, 1, 1)) ** 2
    return slices(smooth(count, name) + 0.8 * mask), mask


def discs(count, name, shift):
    """Slices with a disc that belongs in the middle, and where it is or should be."""
    chance = stream(2, name)
    y, x = 16 + chance.uniform(-1, 1, (2, count, 1, 1))
    angle = chance.uniform(0, 2 * np.pi, (count, 1, 1))
    now = np.hypot(ROWS - y - shift * np.sin(angle), COLUMNS - x - shift * np.cos(angle))
    edge = 0.9 / (1 + np.exp(2 * (now - 5)))
    return slices(0.3 * smooth(count, name) + edge), (now < 5) | (np.hypot(ROWS - y, COLUMNS - x) < 5)


def auroc(score, mask):
    """Probability that a diseased pixel scores above another."""
    ranks, inside = rankdata(score.ravel()), mask.ravel()
    some, rest = inside.sum(), (~inside).sum()
    return float((ranks[inside].sum() - some * (some + 1) / 2) / (some * rest))


def train(function, domains, settings, folder, **more):
    step = Run.open(folder).step("healer")
    return function(domains, settings, step, **{"seed": 1, "fabric": launch(threads=1), **more})


def tiny_domains(channels=1, size=(9, 14)):
    return Domains(
        *(stream(3, name).uniform(-0.9, 0.9, (7, channels, *size)).astype(np.float32) for name in "ab")
    )


BLOBS = Domains(blobs(64, "sick")[0], slices(smooth(64, "well")))


@pytest.mark.parametrize(
    ("function", "settings", "floor"),
    [
        (
            train_mask_head,
            MaskHeadSettings(
                images=320, judge_widths=(16, 32), lr=2e-3, weights=MaskWeights(area=1.0), **NETS
            ),
            0.85,
        ),
        (train_vagan, VaganSettings(images=240, sparsity=20.0, steps=STEPS, **CRITIC, **NETS), 0.95),
        (
            train_fixed_point,
            FixedPointSettings(images=280, betas=(0.0, 0.9), **CRITIC, **NETS),
            0.9,
        ),
    ],
    ids=NAMES[:3],
)
def test_a_blob_is_found_from_image_labels(function, settings, floor, tmp_path):
    """Pixel AUROC of delta on new slices; measured 0.916, 1.000 and 0.998; a random map has 0.5."""
    heal = train(function, BLOBS, settings, tmp_path)
    sick, mask = blobs(12, "new")
    found = heal(sick)
    assert auroc(found.delta, mask) > floor
    assert np.mean([auroc(delta, one) for delta, one in zip(found.delta, mask, strict=True)]) > floor - 0.05
    assert found.delta[mask].mean() > 1.5 * found.delta[~mask].mean()
    changed = np.abs(found.images - sick)[:, 0]
    assert changed[mask].mean() > changed[~mask].mean()
    assert found.images[:, 0][mask].mean() < sick[:, 0][mask].mean()


def test_a_shifted_disc_is_found_by_its_displacement(tmp_path):
    settings = DisplacementSettings(
        images=240, steps=STEPS, weights=DisplacementWeights(bending=1.0), **CRITIC, **NETS
    )
    domains = Domains(discs(64, "sick", 5.0)[0], discs(64, "well", 0.0)[0])
    heal = train(train_displacement, domains, settings, tmp_path)
    sick, mask = discs(12, "new", 5.0)
    found = heal(sick)
    assert auroc(found.delta, mask) > 0.8
    with torch.no_grad():
        moved = heal.generator(torch.from_numpy(sick))
    assert moved.field.abs().max() > 1
    assert moved.added.abs().mean() < 0.05
    assert heal.history[-1]["folded"] < 0.05


@pytest.mark.parametrize(("function", "settings"), TINY, ids=NAMES)
def test_a_cut_training_ends_in_the_same_bytes(function, settings, tmp_path, monkeypatch):
    domains = tiny_domains()
    whole = train(function, domains, settings, tmp_path / "whole")
    shown = Stream.at

    def dying(self, images_seen, **where):
        if self.name.endswith(("diseased", "images")) and "critic" not in self.name and images_seen >= 12:
            raise KeyboardInterrupt
        return shown(self, images_seen, **where)

    with monkeypatch.context() as patched:
        patched.setattr(Stream, "at", dying)
        with pytest.raises(KeyboardInterrupt):
            train(function, domains, settings, tmp_path / "cut")
    resumed = train(function, domains, settings, tmp_path / "cut")
    assert resumed.fitted.resumed_from == 12
    for again in (resumed, train(function, domains, settings, tmp_path / "whole")):
        for name, network in whole.networks.items():
            for one, other in zip(network.parameters(), again.networks[name].parameters(), strict=True):
                assert torch.equal(one, other)
                assert not other.requires_grad
    assert resumed.history[-1]["images"] == 24
    with pytest.raises(RunError, match="other settings"):
        train(function, domains, replace(settings, lr=1e-3), tmp_path / "cut")


@pytest.mark.parametrize(("function", "settings"), TINY, ids=NAMES)
def test_answers_do_not_depend_on_company(function, settings, tmp_path):
    heal = train(function, tiny_domains(channels=2), replace(settings, images=8), tmp_path)
    images = stream(4, "images").uniform(-1, 1, (3, 2, 11, 17)).astype(np.float32)
    together = heal(images)
    assert isinstance(together, Healthy)
    assert together.images.shape == images.shape
    assert together.delta.shape == (3, 11, 17)
    assert together.delta.min() >= 0
    assert np.abs(together.images).max() <= 1
    for number in range(3):
        alone = heal(images[number : number + 1])
        assert np.array_equal(alone.images[0], together.images[number])
        assert np.array_equal(alone.delta[0], together.delta[number])
    assert np.array_equal(image_scores(together), together.delta.max(axis=(1, 2)))
    assert heal(images[:0]).delta.shape == (0, 11, 17)
    with pytest.raises(ShapeError, match="do not fit this method"):
        heal(images[:, :1])


def test_two_diseases_share_a_generator_and_images_are_augmented(tmp_path):
    function, settings = TINY[2]
    which = np.array([1, 2, 1, 2, 1, 1, 1])
    augment = StrongAugment(spatial=SpatialRanges(rotate_deg=5.0))
    more = {"diseases": which, "augment": augment}
    heal = train(function, tiny_domains(), replace(settings, images=8), tmp_path, **more)
    assert heal.generator.domains == 3
    assert heal.networks["critic"].classes.out_features == 3
    with pytest.raises(RunError, match="diseases"):
        train(
            function,
            tiny_domains(),
            replace(settings, images=8),
            tmp_path,
            diseases=3 - which,
            augment=augment,
        )
    for wrong in (np.array([1, 3]), np.zeros(7, int), np.full(7, 2)):
        with pytest.raises(ConfigError, match="diseases do not fit"):
            train(function, tiny_domains(), settings, tmp_path, diseases=wrong)


def test_domains_that_do_not_fit_are_refused_before_anything_is_written(tmp_path):
    function, settings = TINY[1]
    good = tiny_domains()
    with pytest.raises(ShapeError, match="at least one slice"):
        train(function, replace(good, healthy=good.healthy[:0]), settings, tmp_path)
    with pytest.raises(ShapeError, match="more than the disease"):
        train(function, replace(good, healthy=np.tile(good.healthy, (1, 3, 1, 1))), settings, tmp_path)
    for value in (np.nan, 2.0):
        with pytest.raises(DataError, match="not scaled"):
            train(function, replace(good, diseased=np.full_like(good.diseased, value)), settings, tmp_path)
    assert not Run.open(tmp_path).step("healer").inputs_json.exists()

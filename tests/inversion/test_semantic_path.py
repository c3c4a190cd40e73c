"""The whole way with masks on the phantom: from a plain generator to pairs, an encoder and a search."""

import numpy as np
import pytest
import torch

from fewmask.core.run import Run
from fewmask.data.batches import ArraySource, Stream
from fewmask.data.phantom import View, draw_patient, render, scan
from fewmask.inversion import encoder as inversion_encoder
from fewmask.inversion import search as inversion_search
from fewmask.inversion.descent import Goal
from fewmask.inversion.search import search
from fewmask.inversion.semanticencoder import fit_semantic_encoder
from fewmask.objectives.perceptual import DiscriminatorDistance, SumOfDistances
from fewmask.objectives.semanticgan import SearchWeights
from fewmask.synthesis.design import GeneratorDesign, MaskDesign
from fewmask.synthesis.factory import make_pairs
from fewmask.synthesis.generator import train_generator
from fewmask.synthesis.semantic import train_semantic
from fewmask.synthesis.semanticpairs import SemanticPairMaker
from fewmask.synthesis.start import Start
from fewmask.training.launch import launch

DESIGN = GeneratorDesign(
    channel_base=256, channel_max=8, latent=16, mapping_layers=1, batch=8, learning_rate=1e-2,
    ada_operations=(), average_half_life=100, average_ramp=None, path_length_weight=0.0,
)  # fmt: skip
CLASSES = {"lungs": 1}


@pytest.fixture(scope="module")
def phantom():
    """Slices of sixteen phantom patients, 32 px: images (16, 1, 32, 32), masks of the lungs."""
    view, images, masks = View(32, 1), [], []
    for number in range(16):
        drawn = render(draw_patient(0, number, view=view, lesions=()), view)
        images.append(scan(drawn, view, seed=0, number=number).voxels / 500)
        masks.append(np.minimum(drawn.classes({"left_lung": 1, "right_lung": 1})[0], 1))
    return np.stack(images).clip(-1, 1).astype(np.float32), np.stack(masks).astype(np.uint8)


@pytest.fixture(scope="module")
def trained(phantom, tmp_path_factory):
    """The plain generator that it starts from, and one that learned the masks of two slices."""
    run, (images, masks) = Run.open(tmp_path_factory.mktemp("run")), phantom
    how = {"seed": 0, "fabric": launch(threads=1)}
    plain = train_generator(images, DESIGN, run.step("gan"), total=320, **how)
    start = Start(plain.generator, plain.discriminator)
    few = {"images": images[:2], "masks": masks[:2], "classes": 2, "game": MaskDesign(width=4)}
    return plain, train_semantic(
        images, design=DESIGN, step=run.step("pairs"), total=320, start=start, **few, **how
    )


def _dice(said, truth):
    return 2 * float((said & truth).sum()) / float(said.sum() + truth.sum())


def test_pairs_of_a_short_training_show_the_organ_in_its_place(phantom, trained, tmp_path):
    draw = SemanticPairMaker(trained[1].generator, seed=0)
    folder = make_pairs(tmp_path, draw, 6, made_from={}, classes=CLASSES)
    usual = phantom[1].mean(axis=0) > 0.5
    found = [_dice(folder.mask(number) > 0, usual) for number in range(6)]
    everywhere = _dice(np.ones_like(usual), usual)
    assert np.mean(found) > everywhere + 0.1
    assert all(0 <= draw(number).score <= 1 for number in range(6))


def test_a_search_lowers_its_loss_and_marks_the_labelled_slice(phantom, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(inversion_encoder, "CLOUD", 64)
    (images, masks), semantic = phantom, trained[1]
    generator = semantic.generator
    distance = SumOfDistances([(0.1, DiscriminatorDistance(semantic.discriminator))])
    encoder = fit_semantic_encoder(
        generator,
        Stream(ArraySource(images), 8, seed=0, name="unlabelled"),
        Stream(ArraySource(images[:2], masks[:2]), 8, seed=0, name="labelled"),
        Run.open(tmp_path).step("encoder"),
        perceptual=distance,
        images=96,
        seed=0,
        fabric=launch(threads=1),
        passes=1,
        width=8,
    )
    how = {"perceptual": distance, "seed": 0, "passes": 1}
    said, found = (search(generator, images[:2], encoder=encoder, steps=n, **how) for n in (0, 40))
    assert (found.inversion.perceptual < said.inversion.perceptual).all()
    losses = [_loss(encoder, one, images[:2], distance) for one in (said, found)]
    assert (losses[1] < losses[0]).all()
    marked = found.probabilities.argmax(axis=1) > 0
    assert _dice(marked, masks[:2] > 0) > _dice(np.ones_like(marked), masks[:2] > 0) + 0.05


def _loss(encoder, found, images, distance):
    """What a search from the encoder minimises, but for the noise maps."""
    target = torch.from_numpy(images)
    goal = Goal(target, distance.towards(target), encoder.centre, 0.0, 0)
    loss = inversion_search._loss(goal, encoder.centre, encoder, SearchWeights())
    with torch.no_grad():
        return loss(
            torch.from_numpy(found.inversion.images), torch.from_numpy(found.inversion.ws), []
        ).numpy()

"""The encoder of a generator with masks: two kinds of steps in turn, cut gradients, and what masks teach."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.encoder import LatentEncoder
from fewmask.networks.semanticgan import SemanticGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.minimise import Alone
from fewmask.objectives.perceptual import DiscriminatorDistance
from fewmask.objectives.semanticencoder import SemanticEncoderObjective
from fewmask.objectives.semanticgan import EncoderWeights

SIZES = {"channel_base": 128, "channel_max": 8}


def build(masks=3, perceptual=True, **how):
    """An encoder, and labelled pairs that its generator drew itself."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = (
            SemanticGenerator(8, 8, 16, 1, masks, mapping_layers=2, **SIZES).eval().requires_grad_(False)
        )
        distance = DiscriminatorDistance(Discriminator(16, 1, **SIZES).eval().requires_grad_(False), layers=2)
        for parameter in generator.mask_branch.parameters():
            parameter.copy_(torch.randn_like(parameter))
        w = generator.mapping(torch.randn(6, 8))
        image, logits = generator.pair(w, "constant")
        middle = generator.mapping(torch.randn(64, 8))[:, 0].mean(dim=0)
        start = generator.synthesis(middle.expand(1, generator.num_ws, -1), "constant")[0]
    encoder = LatentEncoder(1, 16, generator.num_ws, middle, start, spread=2.0, width=8)
    encoder.initialise(torch.Generator().manual_seed(0))
    mask = (logits.argmax(dim=1) if masks > 1 else logits[:, 0] > 0).numpy().astype(np.uint8)
    labelled = Stream(ArraySource(image.numpy(), mask), 4, seed=0, name="labelled")
    given = {"images": 240, "passes": 2, "learning_rate": 4e-3, **how}
    objective = SemanticEncoderObjective(
        encoder, generator, labelled, perceptual=distance if perceptual else None, **given
    )
    return objective, Stream(ArraySource(image.numpy()), 4, seed=0, name="unlabelled")


class Watching(Alone):
    """Which optimiser stepped in what direction, and how long the gradient was that it was given."""

    def __init__(self, objective):
        super().__init__()
        self.names = {id(o): name for name, o in objective.optimizers().items()}
        self.lengths = {}

    def __call__(self, loss, optimizer):
        total = super().__call__(loss, optimizer)
        given = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.lengths[self.names[id(optimizer)]] = float(torch.stack([g.norm() for g in given]).norm())
        return total


def test_steps_take_turns_and_long_gradients_are_cut():
    objective, stream = build(weights=EncoderWeights(pixels=1e4, entropy=1e4))
    watching = Watching(objective)
    before = [p.clone() for p in objective.encoder.parameters()]
    told = objective.update(stream.at(0), 0, watching)
    assert list(watching.lengths) == ["unlabelled", "labelled"]
    assert watching.lengths == pytest.approx({"unlabelled": 2.0, "labelled": 5.0}, rel=1e-3)
    moved = [not torch.equal(p, q) for p, q in zip(objective.encoder.parameters(), before, strict=True)]
    assert sum(moved) > 0.5 * len(moved)
    assert all(p.grad is None for p in objective.generator.parameters())
    wanted = {"loss_unlabelled", "unlabelled_mse", "unlabelled_perceptual"}
    assert wanted | {"loss_labelled", "labelled_entropy", "labelled_dice"} == set(told)


@pytest.mark.parametrize("masks", [1, 3])
def test_masks_alone_teach_where_they_are(masks):
    """With no weight on pixels the drawn masks of the labelled images become the given ones."""
    weights = EncoderWeights(pixels=0.0, perceptual=0.0)
    objective, stream = build(masks, perceptual=False, weights=weights)
    told = []
    for seen in range(0, 120, 4):
        told.append(objective.update(stream.at(seen), seen, Alone()))
    first, last = ([float(one["labelled_dice"]) for one in some] for some in (told[:5], told[-5:]))
    assert np.mean(last) < 0.7 * np.mean(first)
    assert float(told[-1]["unlabelled_perceptual"]) == 0


def test_micro_batches_teach_what_one_batch_does_without_masks():
    weights = EncoderWeights(entropy=0.0, dice=0.0)
    found = []
    for parts in (1, 2):
        objective, stream = build(weights=weights)
        objective.update(stream.at(0), 0, Alone(parts))
        found.append([p.detach().clone() for p in objective.encoder.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=2e-4)


def test_labelled_batches_must_fit():
    objective, stream = build()
    short = Stream(stream.source, 2, seed=0, name="short")
    with pytest.raises(ConfigError, match="as many labelled"):
        objective.update(short.at(0), 0, Alone())
    objective.labelled = stream
    with pytest.raises(ConfigError, match="no masks"):
        objective.update(stream.at(0), 0, Alone())

"""SemanticGAN's training: who learns from whom, the order, resuming; and the losses on masks."""

import copy
import math

import numpy as np
import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.core.run import Step
from fewmask.core.volume import IGNORE
from fewmask.data.batches import ArraySource, Batch, Stream
from fewmask.networks.semanticgan import MaskDiscriminator, SemanticGenerator
from fewmask.networks.stylegan2 import Discriminator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.minibatch import Fake, Part
from fewmask.objectives.minimise import Alone, backward
from fewmask.objectives.regularise import Average, Regularisation
from fewmask.objectives.semanticgan import (
    FROM_MEAN,
    Anchors,
    MaskGame,
    SearchWeights,
    encoded,
    feature_matching,
    hinge_fake,
    hinge_generator,
    hinge_real,
    labelled_dice,
    labelled_entropy,
    labelled_loss,
    log_probabilities,
    noise_correlation,
    search_loss,
    search_terms,
    unlabelled_loss,
)
from fewmask.objectives.stylegan import StyleGANObjective
from fewmask.training.checkpoint import gather
from fewmask.training.launch import alone
from fewmask.training.loop import fit

BATCH = 4
LAZY = Regularisation(r1_gamma=1.0, r1_every=2, path_length_weight=2.0, path_length_every=2)


def squares(count, seed=0):
    """A bright square in one quarter of a dark image, and where it is."""
    chance = np.random.default_rng(seed)
    masks = np.zeros((count, 16, 16), np.uint8)
    for mask in masks:
        y, x = chance.integers(0, 2, 2) * 8
        mask[y + 1 : y + 8, x + 1 : x + 8] = 1
    return np.where(masks, 0.7, -0.7)[:, None].astype(np.float32), masks


def build(seed=0, *, masks=1, batch=BATCH, labelled=3, group=4, game=None, stream=None, width=8, **settings):
    torch.manual_seed(seed)
    size = {"channel_base": 16 * width, "channel_max": width}
    generator = SemanticGenerator(8, 8, 16, 1, masks, mapping_layers=2, **size)
    discriminator = Discriminator(16, 1, group=group, **size)
    pairs = stream or Stream(ArraySource(*squares(labelled)), batch, seed=0, name="labelled")
    beside = MaskGame(
        generator, MaskDiscriminator(1, masks, width=4), pairs, **{"regularisation": LAZY, **(game or {})}
    )
    settings = {"regularisation": LAZY, "pictures": 4} | settings
    average = copy.deepcopy(generator)
    return StyleGANObjective(generator, discriminator, average, batch=batch, beside=beside, **settings)


def unlabelled(batch=BATCH, seed=1):
    return Stream(ArraySource(squares(64, seed)[0]), batch, seed=0, name="unlabelled")


def train(objective, start, stop, parts=1):
    stream, logged = unlabelled(objective.batch), {}
    for seen in range(start, stop, objective.batch):
        torch.manual_seed(seen)
        logged = objective.update(stream.at(seen), seen, Alone(parts))
    return logged


class Watching(Alone):
    """Which optimiser stepped, in order; with `still` none does."""

    def __init__(self, objective, still=False):
        super().__init__()
        self.names = {id(optimizer): name for name, optimizer in objective.optimizers().items()}
        self.steps, self.still = [], still

    def __call__(self, loss, optimizer):
        self.steps.append(self.names[id(optimizer)])
        return backward(loss, optimizer) if self.still else super().__call__(loss, optimizer)


def test_an_update_reports_and_changes_everything_in_the_published_order():
    objective = build(augment=AdaptiveAugmentation(p=0.5, images=100))
    before = copy.deepcopy({n: m.state_dict() for n, m in objective.modules().items()})
    watching = Watching(objective)
    logged = objective.update(unlabelled().at(0), 0, watching)
    assert watching.steps == ["discriminator"] * 2 + ["mask_discriminator"] * 2 + ["generator"] * 2
    wanted = {"loss_mask_d", "loss_mask_g", "feature_matching", "logit_mask_real", "logit_mask_fake"}
    assert wanted | {"r1", "r1_mask", "path_length", "loss_d", "loss_g"} <= set(logged)
    assert all(math.isfinite(float(value)) for value in logged.values())
    assert set(before) == {"generator", "average", "discriminator", "mask_discriminator"}
    for name, module in objective.modules().items():
        changed = [k for k, v in module.state_dict().items() if not torch.equal(v, before[name][k])]
        assert len(changed) > 0.8 * len(before[name]) - 5, name
    assert all(p.requires_grad for p in objective.modules()["mask_discriminator"].parameters())
    watching.steps.clear()
    assert "r1_mask" not in objective.update(unlabelled().at(BATCH), BATCH, watching)
    assert watching.steps == ["discriminator", "mask_discriminator", "generator"]


def drawn(objective, count=BATCH):
    """A part with labelled pairs, and what was drawn beside them, with its graph."""
    torch.manual_seed(3)
    real = unlabelled(count).at(0)
    game = objective.beside
    ws = objective.generator.mapping(torch.randn(count, 8))
    image, mask = game.draw(ws, "constant")
    image.retain_grad()
    mask.retain_grad()
    return Part(real, slice(0, count), game.at(0, real, Alone())), Fake(image, None, mask)


def test_masks_teach_the_trunk_but_not_the_pixels():
    objective = build()
    part, fake = drawn(objective)
    loss, _ = objective.beside.cost(part, fake)
    loss.backward()
    assert fake.image.grad is None
    assert fake.mask.grad.abs().max() > 0
    generator = objective.generator
    for block in generator.synthesis.blocks:
        assert block.conv1.weight.grad.abs().max() > 0
        assert all(p.grad is None for p in block.to_image.parameters())
    assert all(p.grad.abs().max() > 0 for p in generator.mask_branch.parameters())
    assert generator.mapping.layers[0].weight.grad.abs().max() > 0
    assert all(p.grad is None for p in objective.modules()["mask_discriminator"].parameters())


def test_the_discriminator_of_pairs_does_not_move_the_generator():
    objective = build()
    part, fake = drawn(objective)
    objective.beside.learn([part], [fake], 1, Watching(objective, still=True))
    assert fake.image.grad is None
    assert fake.mask.grad is None
    assert all(p.grad is not None for p in objective.modules()["mask_discriminator"].parameters())


def test_r1_is_the_released_squared_slope_at_image_and_mask_together():
    """Of the sum over scales of the mean over patches and over both pairs."""
    objective = build(batch=2)
    game = objective.beside
    critic = game.discriminator.double()
    for _ in range(500):  # the step of the update would move them
        critic.settle()
    real = unlabelled(2).at(0)
    pairs = game.at(0, real, Alone())
    pairs = Batch(pairs.image.double(), pairs.mask, pairs.index)
    fake = Fake(torch.rand(2, 1, 16, 16).double(), None, torch.rand(2, 1, 16, 16).double())
    logged = game.learn([Part(real, slice(0, 2), pairs)], [fake], 0, Watching(objective, still=True))
    mask = 2.0 * pairs.mask[:, None] - 1
    pair = torch.cat([pairs.image, mask], dim=1)
    small, slope = 1e-4, torch.zeros_like(pair)
    with torch.no_grad():
        for place in range(pair[0].numel()):
            moved = torch.zeros_like(pair).flatten(1)
            moved[:, place] = small
            moved = moved.view_as(pair)
            slope.flatten(1)[:, place] = (critic(pair + moved).score - critic(pair - moved).score) / (
                2 * small
            )
    expected = (slope * 3 / 2).square().sum(dim=(1, 2, 3)).mean()
    pair.requires_grad_()
    released = sum(one.mean() for one in critic(pair).logits)
    (gradient,) = torch.autograd.grad(released, pair)
    assert float(gradient.square().sum(dim=(1, 2, 3)).mean()) == pytest.approx(float(expected), rel=1e-3)
    assert slope[:, 0].abs().max() > 0
    assert slope[:, 1].abs().max() > 0
    assert float(logged["r1_mask"]) == pytest.approx(float(expected), rel=1e-3)


def test_resuming_is_bit_identical(tmp_path):
    def run(folder, images, seed=0):
        objective = build(augment=AdaptiveAugmentation(p=0.5, images=100), seed=seed)
        fit(
            objective,
            unlabelled(),
            Step(tmp_path / folder),
            images=images * BATCH,
            seed=3,
            fabric=alone("cpu"),
            checkpoint_every=3 * BATCH,
            report_every=100,
            label="pairs",
        )
        return objective

    whole = run("whole", 6)
    first = run("halves", 3)
    second = run("halves", 6, seed=1)
    assert second.state() == whole.state() != first.state()
    ours, theirs = (gather(one.modules(), one.optimizers()).tensors for one in (second, whole))
    assert ours.keys() == theirs.keys()
    assert {name for name in ours if name.startswith("optimizer/mask_discriminator")}
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


class Recording:
    """One process of several that steps nowhere but keeps the gradients of every call."""

    def __init__(self, rank, ranks, parts):
        self.rank, self.ranks, self.parts, self.gradients = rank, ranks, parts, []

    def __call__(self, loss, optimizer):
        total = backward(loss, optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.gradients.append([torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters])
        return total

    def mean(self, value):
        return value.detach()


def gradients(ranks, parts):
    """Of one update, averaged over the processes."""
    found = []
    for rank in range(ranks):
        objective, minimise = build(batch=8, group=2), Recording(rank, ranks, parts)
        torch.manual_seed(7)
        objective.update(unlabelled(8).at(0, rank=rank, ranks=ranks), 0, minimise)
        found.append(minimise.gradients)
    return [[sum(parts) / ranks for parts in zip(*call, strict=True)] for call in zip(*found, strict=True)]


def test_the_division_of_a_minibatch_changes_nothing():
    whole, divided = gradients(1, 1), gradients(2, 2)
    assert len(whole) == len(divided) == 6
    for ours, theirs in zip(divided, whole, strict=True):
        scale = max(float(g.abs().max()) for g in theirs)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_real_masks_become_minus_and_plus_one_and_zero_where_unjudged():
    mask = torch.tensor([[[0, 1, 2, IGNORE]]])
    many, judged = encoded(mask, 3)
    assert many[0, :, 0].tolist() == [[1, -1, -1, 0], [-1, 1, -1, 0], [-1, -1, 1, 0]]
    assert judged[0, 0, 0].tolist() == [1, 1, 1, 0]
    one, _ = encoded(torch.tensor([[[0, 1, IGNORE]]]), 1)
    assert one[0].tolist() == [[[-1, 1, 0]]]
    soft, judged = encoded(torch.tensor([0.25, 0.5]).view(1, 2, 1, 1), 1)
    assert float(soft) == 0.25, "2 x 0.5 - 0.75"
    assert float(judged) == 0.75


def test_what_is_drawn_where_nobody_judged_counts_nothing():
    images, masks = squares(3)
    masks[:, :8] = IGNORE
    objective = build(stream=Stream(ArraySource(images, masks), BATCH, seed=0, name="half"))
    part, fake = drawn(objective)
    loss, _ = objective.beside.cost(part, fake)
    (gradient,) = torch.autograd.grad(loss, fake.mask, retain_graph=True)
    assert gradient[:, :, :8].abs().max() == 0
    assert gradient[:, :, 8:].abs().max() > 0
    other = fake.mask.detach().clone()
    other[:, :, :8] = 9.0
    assert torch.equal(objective.beside.cost(part, Fake(fake.image, None, other))[0], loss)


def test_few_labelled_images_are_repeated_and_the_batches_must_agree():
    objective = build(labelled=3)
    real = unlabelled().at(0)
    pairs = objective.beside.at(0, real, Alone())
    assert len(pairs) == BATCH
    assert set(pairs.index.tolist()) == {0, 1, 2}
    with pytest.raises(ConfigError, match="as many labelled"):
        objective.beside.at(0, unlabelled(2).at(0), Alone())
    bare = build(stream=Stream(ArraySource(squares(3)[0]), BATCH, seed=0, name="bare"))
    with pytest.raises(ConfigError, match="no masks"):
        bare.beside.at(0, real, Alone())
    with pytest.raises(ConfigError, match="do not fit"):
        MaskGame(objective.generator, MaskDiscriminator(1, 2, width=4), unlabelled())


def agreement(objective):
    """Correlation of image and mask over generated pairs, each pixel against its mean over the pairs."""
    torch.manual_seed(11)
    with torch.no_grad():
        pair = objective.average.pair(objective.average.mapping(torch.randn(64, 8)), "constant")
    image, mask = ((x - x.mean(dim=0)).flatten() for x in pair)
    return float(torch.dot(image, mask) / (image.norm() * mask.norm()))


def test_masks_learn_to_follow_the_images():
    """With masks that belong to other images the agreement stays below 0.1 (measured)."""
    images, masks = squares(32)
    pairs = Stream(ArraySource(images, masks), 8, seed=0, name="labelled")
    lazy = Regularisation(r1_gamma=1.0, r1_every=8)
    game = {"regularisation": Regularisation(r1_gamma=10.0, r1_every=8), "lr": 5e-3}
    averaging = Average(half_life=100.0)
    objective = build(batch=8, stream=pairs, game=game, regularisation=lazy, averaging=averaging, lr=5e-3)
    assert agreement(objective) < 0.1
    train(objective, 0, 120 * 8)
    assert agreement(objective) > 0.4


def judged_of(seed):
    torch.manual_seed(seed)
    with torch.no_grad():
        return MaskDiscriminator(1, 1, width=2)(torch.randn(2, 2, 16, 16))


def test_the_hinge_stops_where_the_answer_is_sure():
    judged = judged_of(0)
    for one in judged.logits:
        one.fill_(3.0)
    assert (float(hinge_real(judged)), float(hinge_fake(judged)), float(hinge_generator(judged))) == (
        0,
        4,
        -3,
    )


def test_feature_matching_is_zero_for_the_same_pairs_and_adds_layers():
    one, other = judged_of(0), judged_of(1)
    assert float(feature_matching(one, one)) == 0
    by_hand = [
        sum(float((a - b).abs().mean()) for a, b in zip(x, y, strict=True))
        for x, y in zip(one.features, other.features, strict=True)
    ]
    assert float(feature_matching(one, other)) == pytest.approx(sum(by_hand) / 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_mask_losses_know_right_from_wrong_and_pass_over_the_unjudged(channels):
    torch.manual_seed(0)
    mask = torch.randint(0, max(channels, 2), (2, 8, 8))
    right = encoded(mask, channels)[0]
    for loss in (labelled_entropy, labelled_dice):
        assert float(loss(4 * right, mask)) < 0.01
        assert float(loss(-right, mask)) > 0.5
    hidden, logits = mask.clone(), torch.randn_like(right, requires_grad=True)
    hidden[:, :4] = IGNORE
    for loss in (labelled_entropy, labelled_dice):
        torch.testing.assert_close(loss(logits, hidden), loss(logits[:, :, 4:], mask[:, 4:]))
        assert float(loss(logits.detach(), torch.full_like(mask, IGNORE))) == 0
        (slope,) = torch.autograd.grad(loss(logits, hidden), logits)
        assert slope[:, :, :4].abs().max() == 0


def test_the_encoder_learns_from_pixels_and_from_masks():
    drawn, image, distance = torch.full((2, 1, 8, 8), 0.5), torch.zeros(2, 1, 8, 8), torch.tensor([0.1, 0.3])
    mask, logits = torch.ones(2, 8, 8).long(), torch.randn(2, 1, 8, 8)
    base = unlabelled_loss(drawn, image, distance)
    assert float(base) == pytest.approx(0.25 + 10 * 0.2)
    whole = labelled_loss(drawn, image, distance, logits, mask)
    assert float(whole - base) == pytest.approx(
        float(labelled_entropy(logits, mask) + labelled_dice(logits, mask)), rel=1e-4
    )


def test_the_search_weighs_its_terms():
    drawn, image, ws = torch.full((2, 1, 8, 8), 2.0), torch.zeros(2, 1, 8, 8), torch.ones(2, 3, 4)
    anchors = Anchors(encode=lambda x: x.mean() * torch.ones(2, 3, 4), mean=torch.zeros(4))
    maps = [torch.ones(2, 1, 8, 8)]
    terms = search_terms(drawn, image, torch.tensor([0.1, 0.2]), maps, ws, anchors)
    assert {name: term.tolist() for name, term in terms.items() if name != "perceptual"} == {
        "pixels": [4.0, 4.0],
        "noise": [2.0, 2.0],
        "encoder": [1.0, 1.0],
        "mean": [1.0, 1.0],
    }
    loose = torch.full((2, 1, 8, 8), 2.0, requires_grad=True)
    far = search_terms(loose, image, torch.zeros(2), maps, ws.requires_grad_(), anchors)["encoder"]
    slopes = torch.autograd.grad(far.sum(), [ws, loose], allow_unused=True)
    assert slopes[0].abs().max() > 0
    assert slopes[1] is None, "what the encoder says of the image is taken as given"
    by_encoder, by_mean = search_loss(terms, SearchWeights()), search_loss(terms, FROM_MEAN)
    assert by_encoder.tolist() == pytest.approx([200.501, 200.601])
    assert by_mean.tolist() == pytest.approx([200.51, 200.61])
    assert float(noise_correlation([torch.randn(1, 1, 64, 64)])) < 0.01


@pytest.mark.parametrize("channels", [1, 3])
def test_probabilities_add_up_and_agree_with_the_mask(channels):
    torch.manual_seed(0)
    logits = torch.randn(2, channels, 8, 8)
    sharp, soft = (log_probabilities(logits, t).exp() for t in (None, 1.0))
    wanted = logits.argmax(dim=1) if channels > 1 else (logits[:, 0] > 0).long()
    for one in (sharp, soft):
        torch.testing.assert_close(one.sum(dim=1), torch.ones(2, 8, 8))
        assert torch.equal(one.argmax(dim=1), wanted)
    assert sharp.amax(dim=1).mean() > soft.amax(dim=1).mean() + 0.1

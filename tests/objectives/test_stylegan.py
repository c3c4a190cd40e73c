"""StyleGAN's objective: it learns, resumes, keeps the papers' rules, however a batch is divided."""

import copy
import math

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks import stylegan3
from fewmask.networks.stylegan2 import Discriminator, Generator
from fewmask.objectives.ada import AdaptiveAugmentation
from fewmask.objectives.minimise import Alone, backward
from fewmask.objectives.regularise import Average, FadingBlur, Regularisation
from fewmask.objectives.stylegan import StyleGANObjective

BATCH = 4
SIZE = {"channel_base": 128, "channel_max": 8}


def build(seed=0, *, kind="stylegan2", classes=0, batch=BATCH, group=4, **settings):
    torch.manual_seed(seed)
    network = Generator if kind == "stylegan2" else stylegan3.Generator
    more = {} if kind == "stylegan2" else {"num_layers": 3, "margin_size": 4}
    generator = network(8, 8, 16, 1, mapping_layers=2, classes=classes, **SIZE, **more)
    discriminator = Discriminator(16, 1, classes=classes, group=group, **SIZE)
    if classes:
        settings["labels"] = torch.eye(classes)[torch.arange(10) % classes]
    settings = {"augment": AdaptiveAugmentation(p=0.5, images=100), "pictures": 4} | settings
    return StyleGANObjective(generator, discriminator, copy.deepcopy(generator), batch=batch, **settings)


def reals(seed, count=BATCH, classes=0):
    torch.manual_seed(seed)
    image = torch.rand(count, 1, 16, 16) * 0.2 + torch.rand(count, 1, 1, 1)
    label = torch.eye(classes)[torch.arange(count) % classes] if classes else None
    return Batch(image, None, torch.arange(count), label)


def train(objective, start, stop, classes=0, parts=1):
    logged = {}
    for seen in range(start, stop, objective.batch):
        batch = reals(seen, objective.batch, classes)
        logged = objective.update(batch, seen, Alone(parts))
    return logged


def test_an_update_reports_and_changes_everything():
    objective = build(regularisation=Regularisation(path_length_weight=2.0))
    before = copy.deepcopy({n: m.state_dict() for n, m in objective.modules().items()})
    logged = train(objective, 0, BATCH)
    wanted = {"loss_d", "loss_g", "r1", "ada_p", "path_length"}
    wanted |= {f"{what}_{which}" for what in ("sign", "logit", "spread") for which in ("real", "fake")}
    assert set(logged) == wanted
    assert all(math.isfinite(float(value)) for value in logged.values())
    for name, module in objective.modules().items():
        changed = [k for k, v in module.state_dict().items() if not torch.equal(v, before[name][k])]
        assert len(changed) > 0.8 * len(before[name]) - 4, name
    assert all(p.requires_grad for p in objective.discriminator.parameters())
    assert objective.samples().shape == (4, 1, 16, 16)
    assert objective.samples().abs().max() <= 1


def test_lazy_steps_come_at_their_minibatches():
    objective = build(regularisation=Regularisation(r1_every=3))
    assert ["r1" in train(objective, n * BATCH, (n + 1) * BATCH) for n in range(5)] == [
        True,
        False,
        False,
        True,
        False,
    ]


def test_resuming_is_bit_identical():
    settings = {"regularisation": Regularisation(r1_every=2, path_length_weight=2.0)}
    whole = build(**settings)
    train(whole, 0, 10 * BATCH)
    first = build(**settings)
    train(first, 0, 5 * BATCH)
    second = build(seed=1, **settings)
    for name, module in second.modules().items():
        module.load_state_dict(first.modules()[name].state_dict())
    for name, optimizer in second.optimizers().items():
        optimizer.load_state_dict(copy.deepcopy(first.optimizers()[name].state_dict()))
    second.load_state(first.state())
    train(second, 5 * BATCH, 10 * BATCH)
    assert second.state() == whole.state()
    for name, module in second.modules().items():
        theirs = whole.modules()[name].state_dict()
        assert all(torch.equal(value, theirs[key]) for key, value in module.state_dict().items()), name


def test_the_generator_learns_the_mean_intensity():
    objective = build(augment=None, lr=1e-2, averaging=Average(half_life=100.0))
    assert abs(float(objective.samples().mean()) - 0.6) > 0.3
    train(objective, 0, 40 * BATCH)
    assert abs(float(objective.samples().mean()) - 0.6) < 0.3


def test_adam_is_slowed_for_the_lazy_steps():
    objective = build(lr=0.002, regularisation=Regularisation(r1_every=16))
    group = objective.optimizers()["discriminator"].param_groups[0]
    assert group["lr"] == pytest.approx(0.002 * 16 / 17)
    assert group["betas"] == (0.0, pytest.approx(0.99 ** (16 / 17)))
    assert objective.optimizers()["generator"].param_groups[0]["lr"] == 0.002


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


def gradients(ranks, parts, **settings):
    """Of one update, averaged over the processes."""
    found = []
    for rank in range(ranks):
        objective = build(batch=8, group=2, **settings)
        whole = reals(0, 8, settings.get("classes", 0))
        minimise = Recording(rank, ranks, parts)
        torch.manual_seed(7)
        objective.update(whole.take(slice(rank, None, ranks)), 0, minimise)
        found.append(minimise.gradients)
    return [[sum(parts) / ranks for parts in zip(*call, strict=True)] for call in zip(*found, strict=True)]


@pytest.mark.parametrize(
    "settings",
    [
        {"regularisation": Regularisation(path_length_weight=2.0)},
        {"classes": 3, "reuse_fakes": True},
        {"kind": "stylegan3", "fading": FadingBlur(2.0, 100)},
    ],
    ids=["paths", "classes", "stylegan3"],
)
def test_the_division_of_a_minibatch_changes_nothing(settings):
    whole = gradients(1, 1, **settings)
    assert len(whole) == (4 if "regularisation" in settings else 3)
    for ours, theirs in zip(gradients(2, 2, **settings), whole, strict=True):
        scale = max(float(g.abs().max()) for g in theirs)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4 * scale)


def test_running_means_do_not_depend_on_the_parts():
    for kind in ("stylegan2", "stylegan3"):
        states = []
        for parts in (1, 2):
            objective = build(kind=kind, batch=8, group=2)
            train(objective, 0, 8, parts=parts)
            states.append(dict(objective.generator.named_buffers()))
        moved = [n for n, v in states[0].items() if n.endswith(("w_avg", "magnitude_ema"))]
        assert len(moved) == (1 if kind == "stylegan2" else 5)
        for name in moved:
            assert not torch.equal(states[0][name], dict(build(kind=kind).generator.named_buffers())[name])
            torch.testing.assert_close(states[0][name], states[1][name])


def test_groups_must_fit_into_the_parts():
    with pytest.raises(ConfigError, match="group") as told:
        train(build(batch=8, group=4), 0, 8, parts=4)
    assert "8 images in 1 processes x 4 micro-batches" in str(told.value)


def test_the_generator_learns_from_its_own_images_unless_they_are_reused():
    drawn = []
    for reuse in (False, True):
        objective = build(reuse_fakes=reuse, augment=None)
        seen = []
        objective.discriminator.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(x[0].detach()))
        train(objective, 0, BATCH)
        drawn.append(torch.equal(seen[0], seen[-1]))
    assert drawn == [False, True]


def test_classes_reach_both_networks_and_the_samples():
    objective = build(classes=2, pictures=4)
    logged = train(objective, 0, 2 * BATCH, classes=2)
    assert math.isfinite(float(logged["loss_g"]))
    with torch.no_grad():  # make the class visible
        objective.average.mapping.embed.weight.mul_(100)
        for layer in objective.average.mapping.layers:
            layer.weight.mul_(10)
    seen = []
    objective.average.mapping.register_forward_pre_hook(lambda _, x: seen.append(x[1]))
    objective.samples()
    assert seen[0].argmax(dim=1).tolist() == [0, 1, 0, 1]


def test_labels_must_fit_the_classes():
    generator = Generator(4, 4, 16, 1, channel_max=4, classes=2)
    discriminator = Discriminator(16, 1, channel_max=4, classes=2)
    with pytest.raises(ConfigError, match="class labels"):
        StyleGANObjective(generator, discriminator, copy.deepcopy(generator), batch=4)


def test_stylegan3_learns_with_a_fading_blur():
    objective = build(kind="stylegan3", fading=FadingBlur(10.0, 100), mixing=0.0)
    logged = train(objective, 0, 2 * BATCH)
    assert all(math.isfinite(float(value)) for value in logged.values())
    assert objective.samples().shape == (4, 1, 16, 16)


def test_frozen_blocks_stay_and_all_others_learn():
    objective = build(freeze=1)
    before = copy.deepcopy(objective.discriminator.state_dict())
    train(objective, 0, 2 * BATCH)
    for name, value in objective.discriminator.named_parameters():
        frozen = name.startswith(("from_image", "blocks.0"))
        assert torch.equal(value, before[name]) == frozen, name
        assert value.requires_grad != frozen
    with pytest.raises(ConfigError, match="blocks to freeze"):
        build(freeze=9)


def test_unseen_images_are_asked_about_when_r1_is_due():
    unseen = reals(5, 7)
    objective = build(held_out=unseen, regularisation=Regularisation(r1_every=2))
    assert ["logit_held_out" in train(objective, n * BATCH, (n + 1) * BATCH) for n in range(3)] == [
        True,
        False,
        True,
    ]


def test_r1_is_of_the_image_before_its_augmentation():
    objective = build(augment=AdaptiveAugmentation(("rotate90",), p=1.0, p_max=1.0))
    plain = build(augment=None)
    turned, straight = train(objective, 0, BATCH), train(plain, 0, BATCH)
    assert float(turned["r1"]) > 0
    assert float(turned["r1"]) != float(straight["r1"])


def test_networks_that_do_not_fit():
    generator = Generator(4, 4, 16, 1, channel_max=4)
    with pytest.raises(ConfigError, match="do not fit"):
        StyleGANObjective(generator, Discriminator(32, 1, channel_max=4), generator, batch=4)
    with pytest.raises(ConfigError, match="minibatch of one image"):
        StyleGANObjective(generator, Discriminator(16, 1, channel_max=4), generator, batch=1)

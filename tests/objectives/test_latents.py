"""A minibatch's chance: rows of it are the same however it is divided."""

import torch

from fewmask.networks.stylegan2 import Generator
from fewmask.objectives.latents import draw_latents, noises, normal_rows, show_latents, styles


def network(classes=0):
    return Generator(8, 8, 16, 1, channel_base=64, channel_max=4, mapping_layers=1, classes=classes)


def test_rows_of_latents_are_latents_of_rows():
    generator = network(classes=2)
    labels = torch.eye(2)[torch.tensor([0, 1, 1, 1])]
    latents = draw_latents(generator, 6, mixing=1.0, labels=labels, like=torch.zeros(()))
    assert latents.cut is not None
    whole, some = styles(generator, latents), latents.rows(slice(1, None, 3))
    assert len(some) == 2
    torch.testing.assert_close(styles(generator, some), whole[1::3])
    for ours, theirs in zip(noises(generator, some), noises(generator, latents), strict=True):
        assert torch.equal(ours, theirs[1::3])


def test_noise_is_normal_and_differs_between_images_and_layers():
    noise = noises(network(), show_latents(network(), 200, 0))
    assert [tuple(one.shape[1:]) for one in noise] == [(1, s, s) for s in (4, 8, 8, 16, 16)]
    assert abs(float(noise[4].std()) - 1) < 0.02
    assert not torch.equal(noise[3], noise[4])
    assert not torch.equal(noise[4][0], noise[4][1])
    assert torch.equal(normal_rows([3], "a", 5, noise[0]), normal_rows([3], "a", 5, noise[0]))


def test_labels_follow_the_training_distribution():
    generator = network(classes=2)
    labels = torch.eye(2)[torch.tensor([0, 1, 1, 1])]
    latents = draw_latents(generator, 4000, mixing=0.0, labels=labels, like=torch.zeros(()))
    assert latents.cut is None
    assert abs(float(latents.label[:, 1].mean()) - 0.75) < 0.03

"""How an image turns into noise, and what is asked of the network."""

import pytest
import torch

from fewmask.core.errors import ConfigError
from fewmask.data.batches import Batch
from fewmask.networks.diffusion import Denoiser
from fewmask.objectives.diffusion import DiffusionObjective, Noising, noised
from fewmask.objectives.minimise import Alone


def batch(label=True):
    image = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return Batch(image, None, torch.arange(8), torch.eye(2)[torch.arange(8) % 2] if label else None)


@pytest.mark.parametrize(("kind", "steps"), [("linear", 1000), ("linear", 200), ("cosine", 1000)])
def test_all_of_the_image_goes(kind, steps):
    kept = Noising(steps, kind).kept()
    assert len(kept) == steps + 1
    assert kept[0] == 1
    assert (kept[1:] < kept[:-1]).all()
    assert 0 <= kept[-1] < 1e-4


def test_the_linear_way_is_the_published_one():
    kept = Noising().kept()
    assert float(kept[1]) == pytest.approx(1 - 1e-4)
    assert float(kept[1000]) == pytest.approx(4.036e-5, rel=1e-3)


def test_moments_of_the_way_to_noise():
    """x_t given x_0 has mean sqrt(kept) x_0 and variance 1 - kept; so has step by step (DDPM, equation 2)."""
    kept = Noising(50, "cosine").kept()
    chance = torch.Generator().manual_seed(0)
    image = torch.full((20_000, 1, 1, 1), 0.7)
    x, level = image.double(), 25
    for t in range(1, level + 1):
        alpha = kept[t] / kept[t - 1]
        x = alpha.sqrt() * x + (1 - alpha).sqrt() * torch.randn(x.shape, generator=chance, dtype=x.dtype)
    noise = torch.randn(image.shape, generator=chance)
    at_once = noised(image, noise, kept[level].expand(len(image)))
    for values in (x, at_once):
        assert float(values.mean()) == pytest.approx(0.7 * float(kept[level]) ** 0.5, abs=0.02)
        assert float(values.var()) == pytest.approx(1 - float(kept[level]), rel=0.03)


def test_the_first_loss_is_the_noise_s_variance_and_falls():
    torch.manual_seed(0)
    learner = DiffusionObjective(Denoiser(1, widths=(4, 8)), images=800, lr=3e-3, average=80)
    losses = [float(learner.update(batch(), 8 * number, Alone())["loss"]) for number in range(60)]
    assert losses[0] == pytest.approx(1, abs=0.1)
    assert sum(losses[-10:]) / 10 < 0.75


def test_the_average_lags_behind():
    torch.manual_seed(0)
    learner = DiffusionObjective(Denoiser(1, widths=(4, 8)), images=800, lr=1e-2, average=1000)
    for number in range(10):
        learner.update(batch(), 8 * number, Alone())
    ours, mean = learner.network.enter.weight, learner.average.enter.weight
    assert not torch.equal(ours, mean)
    assert (ours - mean).abs().max() < 0.1
    assert not any(parameter.requires_grad for parameter in learner.average.parameters())


class Recorder(Denoiser):
    """Keeps which labels it was told."""

    def forward(self, noisy, level, label):
        self.told = label.clone()
        return super().forward(noisy, level, label)


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 64, 64), (1.0, 0, 0), (0.5, 20, 44)])
def test_labels_are_left_out(share, least, most):
    torch.manual_seed(0)
    network = Recorder(1, widths=(2, 2))
    image, label = torch.rand(64, 1, 4, 4), torch.eye(2)[torch.arange(64) % 2]
    learner = DiffusionObjective(network, images=800, unlabelled=share)
    learner.update(Batch(image, None, torch.arange(64), label), 0, Alone())
    kept = network.told.sum(dim=1) > 0
    assert least <= int(kept.sum()) <= most
    assert torch.equal(network.told[kept], label[kept])


def test_micro_batches_give_the_same_loss():
    losses = []
    for parts in (1, 2):
        torch.manual_seed(0)
        learner = DiffusionObjective(Denoiser(1, widths=(4, 8)), images=800)
        losses.append(float(learner.update(batch(), 0, Alone(parts))["loss"]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_settings_out_of_range():
    with pytest.raises(ConfigError, match="more steps"):
        Noising(10)
    with pytest.raises(ConfigError, match="labels left out"):
        DiffusionObjective(Denoiser(1, widths=(4, 8)), images=8, unlabelled=1.5)
    learner = DiffusionObjective(Denoiser(1, widths=(4, 8)), images=8)
    with pytest.raises(ConfigError, match="this batch has none"):
        learner.update(batch(label=False), 0, Alone())

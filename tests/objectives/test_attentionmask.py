"""The masked translators' sums on small tensors: blending, area, variation, and micro-batches."""

import numpy as np
import pytest
import torch
from torch import nn

from fewmask.core.seed import stream
from fewmask.data.batches import ArraySource, Stream
from fewmask.networks.attentionmask import MaskedTranslator, blend
from fewmask.networks.critic import Critic
from fewmask.objectives.attentionmask import (
    MaskHeadObjective,
    MaskWeights,
    total_variation,
)
from fewmask.objectives.cyclegan import Rate
from fewmask.objectives.minimise import Alone


def images(name, level=0.0):
    values = stream(0, name).uniform(-0.2, 0.2, (12, 1, 8, 8)) + level
    return Stream(ArraySource(values.astype(np.float32)), 4, seed=0, name=name)


def build(**how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        translators = [MaskedTranslator(1, widths=(4, 6)) for _ in range(2)]
        judges = [Critic(1, widths=(4, 6)) for _ in range(2)]
    return MaskHeadObjective(*translators, *judges, images("well"), size=(8, 8), rate=Rate(1e-3, 1000), **how)


class Closed(nn.Module):
    """A translator whose mask is 0 everywhere."""

    def forward(self, image):
        mask = torch.zeros_like(image[:, :1])
        return blend(torch.ones_like(image), mask, image), mask


def test_a_mask_chooses_between_content_and_image():
    image, content = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    mask = torch.tensor([0.0, 1.0, 0.25]).view(1, 1, 1, 3).expand(1, 1, 3, 3)
    made = blend(content, mask, image)
    assert torch.equal(made[..., 0], image[..., 0])
    assert torch.equal(made[..., 1], content[..., 1])
    assert torch.allclose(made[..., 2], 0.25 * content[..., 2] + 0.75 * image[..., 2])


@pytest.mark.parametrize("size", [(5, 7), (16, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_mask_is_the_delta(size, channels):
    translator = MaskedTranslator(channels, widths=(4, 6))
    image = torch.rand(2, channels, *size) * 2 - 1
    with torch.no_grad():
        healthy, delta = translator.heal(image)
        content, mask = translator.parts(image)
    assert torch.equal(healthy, blend(content, mask, image))
    assert torch.equal(delta, mask[:, 0])
    assert delta.shape == (2, *size)
    assert 0 < float(delta.min()) < float(delta.max()) < 1
    assert content.abs().max() <= 1


def test_total_variation_is_a_mean_of_steps():
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:] = 1
    assert float(total_variation(mask)) == pytest.approx(4 / 12)
    assert float(total_variation(mask.transpose(2, 3))) == pytest.approx(4 / 12)
    assert float(total_variation(torch.full((1, 1, 4, 4), 0.7))) == 0


def test_closed_masks_cost_what_the_judges_say():
    """Nothing changes: no cycle, identity, area or variation is left."""
    objective = build()
    objective.heal, objective.harm = Closed(), Closed()
    x, y = torch.rand(2, 3, 1, 8, 8)
    loss, (healed, harmed), numbers = objective.cost(x, y)
    assert torch.equal(healed, x)
    assert torch.equal(harmed, y)
    assert not numbers.any()
    wanted = (objective.judge_healthy.patches(x) - 1).square().mean()
    wanted = wanted + (objective.judge_diseased.patches(y) - 1).square().mean()
    assert torch.allclose(loss, wanted, rtol=1e-5)


def test_every_term_has_its_weight():
    x, y = torch.rand(2, 3, 1, 8, 8)
    none = {"cycle": 0.0, "identity": 0.0, "area": 0.0, "variation": 0.0}
    objective = build(weights=MaskWeights(**none))
    bare, _, (cycle, identity, _) = objective.cost(x, y)
    (_, a), (_, b) = objective.heal(x), objective.harm(y)
    terms = {"cycle": cycle, "identity": identity, "area": a.mean() + b.mean()}
    terms["variation"] = total_variation(a) + total_variation(b)
    for name, term in terms.items():
        objective.weights = MaskWeights(**(none | {name: 3.0}))
        assert torch.allclose(objective.cost(x, y)[0] - bare, 3 * term, rtol=1e-4, atol=1e-5)


def test_micro_batches_teach_what_one_batch_does():
    found = []
    for parts in (1, 2):
        objective = build()
        told = objective.update(images("sick", 0.3).at(0), 0, Alone(parts))
        assert {"loss", "loss_d", "cycle", "identity", "area"} == set(told)
        found.append(
            [told["loss"], told["loss_d"], *(p.detach() for p in objective.judge_healthy.parameters())]
        )
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=2e-3)  # Adam's first step is lr whatever the gradient's size


def test_a_heavy_charge_closes_the_masks():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = build(weights=MaskWeights(area=1000.0))
        objective.rate = Rate(1e-2, 1000)
        told = [objective.update(images("sick", 0.3).at(n), n, Alone()) for n in range(0, 80, 4)]
    assert float(told[-1]["area"]) < 0.7 * float(told[0]["area"])

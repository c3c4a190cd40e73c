"""Every fault does what its name says, and only where it was drawn."""

from dataclasses import replace

import pytest
import torch

from fewmask.objectives.faults import Faults, draw_faults, plant


def _images(count=64, size=16):
    coarse = torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    return torch.nn.functional.interpolate(coarse, size=size, mode="bilinear")


def _none(image) -> Faults:
    """A record of no fault."""
    drawn = draw_faults(image.shape, torch.Generator().manual_seed(1))
    still = replace(drawn.wobble, control=torch.zeros_like(drawn.wobble.control))
    grain = drawn.grain
    calm = replace(grain, noise=0 * grain.noise, blur=0 * grain.blur, coarser=1 + 0 * grain.coarser)
    return Faults(still, calm, 0 * drawn.blotch, 0 * drawn.stripes, 0 * drawn.paste)


def test_no_fault_changes_nothing():
    image = _images()
    assert torch.allclose(plant(image, _none(image)), image, atol=1e-5)


def test_a_box_is_filled_from_elsewhere():
    image = _images(2)
    paste = torch.tensor([[0.25, 0.5, 0.25, 0.125, 0.5, 0.0], [0.0] * 6])
    found = plant(image, replace(_none(image), paste=paste))
    changed = (found - image).abs() > 1e-4
    assert changed[0, 0, 4:8, 8:10].float().mean() > 0.9
    changed[0, 0, 4:8, 8:10] = False
    assert not changed.any()
    away = (int((0.15 + 0.35) * 16), int(0.15 * 16))
    taken = image[0, 0].roll((-away[0], -away[1]), (0, 1))[4:8, 8:10]
    assert torch.allclose(found[0, 0, 4:8, 8:10], taken, atol=1e-5)


def test_stripes_have_their_period():
    image = torch.zeros(1, 1, 8, 8)
    found = plant(image, replace(_none(image), stripes=torch.tensor([[0.2, 1.0, 0.0]])))
    assert found[0, 0, :, 3] == pytest.approx(0.2 * (-1.0) ** torch.arange(8), abs=1e-4)


def test_draws_come_from_the_generator_most_images_get_a_fault_and_rows_can_be_taken():
    image = _images()
    drawn = [draw_faults(image.shape, torch.Generator().manual_seed(7)) for _ in range(2)]
    found = plant(image, drawn[0])
    assert torch.equal(found, plant(image, drawn[1]))
    harmed = ((found - image).abs().amax(dim=(1, 2, 3)) > 0.01).float().mean()
    assert 0.75 < harmed < 1
    assert float(found.abs().max()) <= 1
    assert torch.allclose(plant(image[1::4], drawn[0].take(slice(1, None, 4))), found[1::4], atol=1e-5)

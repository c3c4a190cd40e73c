import pytest
import torch

from fewmask.inversion.noise import draw_maps, noise_correlation, renormalised


def _chances(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def test_maps_are_an_image_s_own():
    together = draw_maps((4, 16), _chances(1, 2))
    alone = draw_maps((4, 16), _chances(2))
    assert [tuple(noise.shape) for noise in together] == [(2, 1, 4, 4), (2, 1, 16, 16)]
    assert all(torch.equal(a[1:], b) for a, b in zip(together, alone, strict=True))


def test_renormalised_maps_have_no_mean_and_unit_variance():
    noise = renormalised(torch.randn(3, 1, 8, 8, generator=_chances(0)[0]) * 4 + 2)
    assert torch.allclose(noise.mean(dim=(1, 2, 3)), torch.zeros(3), atol=1e-6)
    assert torch.allclose(noise.square().mean(dim=(1, 2, 3)), torch.ones(3), atol=1e-5)


def test_white_noise_is_hardly_punished_and_structure_is_at_every_scale():
    white = draw_maps((32,), _chances(0, 1, 2))[0]
    rows = torch.arange(32) % 2 * 2.0 - 1
    stripes = rows.expand(1, 1, 32, 32)
    blocks = rows.repeat_interleave(4)[:32].expand(1, 1, 32, 32)
    assert (noise_correlation([white]) < 0.1).all()
    assert float(noise_correlation([stripes])) == pytest.approx(2.0)  # at full size; halved they are zero
    assert float(noise_correlation([blocks])) > 2.0


def test_the_paper_s_sum_written_out():
    noise = draw_maps((16,), _chances(5))[0]
    wanted = 0.0
    for picture in (noise[0, 0], torch.nn.functional.avg_pool2d(noise, 2)[0, 0] * 2):
        for axis in (0, 1):
            wanted += float((picture * picture.roll(-1, axis)).mean() ** 2)
    assert float(noise_correlation([noise])) == pytest.approx(wanted, rel=1e-5)
    small = draw_maps((8,), _chances(5))[0]  # 8 px and less are not halved
    plain = sum(float((small * small.roll(1, axis)).mean() ** 2) for axis in (2, 3))
    assert float(noise_correlation([small])) == pytest.approx(plain, rel=1e-5)

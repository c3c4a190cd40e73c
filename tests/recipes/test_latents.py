"""From slices to latents: support and test slices go the same way, and nothing is done twice."""

import numpy as np
import pytest
import torch

from fewmask.core.errors import RunError
from fewmask.inversion.resume import network_key
from fewmask.recipes import latents as module
from fewmask.recipes.heads import Heads
from fewmask.recipes.latents import Latents

WORKERS = ("project", "tune_together", "encode", "fit_encoder")


def fresh(heads: Heads) -> Latents:
    """As another process would begin."""
    return Latents(heads.stage, heads.settings, heads.gan, heads.unlabelled)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, object, int]]:
    """(what, the generator or encoder it got, how many slices) of every call that computes."""
    made: list[tuple[str, object, int]] = []

    def spied(name, work):
        def call(network, *rest, **how):
            arrays = [len(one) for one in rest if isinstance(one, np.ndarray)]
            made.append((name, network, sum(arrays)))
            return work(network, *rest, **how)

        return call

    for name in WORKERS:
        monkeypatch.setattr(module, name, spied(name, getattr(module, name)))
    return made


def slices(heads: Heads) -> np.ndarray:
    return np.asarray(heads.unlabelled[:3], dtype=np.float32)


def drawn(generator, found) -> np.ndarray:
    with torch.no_grad():
        return generator.synthesis(torch.from_numpy(found.ws), noise="constant").numpy()


def test_pti_meets_labelled_and_test_slices_with_the_tuned_generator(heads: Heads, calls):
    latents = fresh(heads)
    support, test = latents.invert("pti", slices(heads), "a"), latents.invert("pti", heads.tested.images, "b")
    tuned = latents.tuned.generator
    assert network_key(tuned) != network_key(heads.gan.generator)
    assert [name for name, _, _ in calls].count("tune_together") == 1
    last = [network for name, network, _ in calls if name == "project"][-2:]
    assert all(network is tuned for network in last)
    for found in (support, test):
        np.testing.assert_allclose(drawn(tuned, found), found.images, atol=1e-5)
        assert np.abs(drawn(heads.gan.generator, found) - found.images).max() > 1e-4
    assert latents.generator("pti") is tuned
    for way in ("w", "w+", "encoder"):
        assert latents.generator(way) is heads.gan.generator


@pytest.mark.parametrize(("way", "styles"), [("w", 1), ("w+", 2)])
def test_by_steps_a_slice_has_one_latent_or_one_per_layer(heads: Heads, way, styles):
    found = fresh(heads).invert(way, slices(heads), "a")
    assert found.ws.shape == (3, heads.gan.generator.num_ws, heads.gan.generator.w_dim)
    different = len(np.unique(found.ws[0], axis=0))
    assert (different == 1) == (styles == 1)
    np.testing.assert_allclose(drawn(heads.gan.generator, found), found.images, atol=1e-5)


def test_one_encoder_learns_for_all_slices(heads: Heads, calls):
    latents = fresh(heads)
    latents.invert("encoder", slices(heads), "a")
    latents.invert("encoder", slices(heads)[:1], "b")
    assert [(name, count) for name, _, count in calls] == [("fit_encoder", 0), ("encode", 3), ("encode", 1)]
    assert calls[1][1] is calls[2][1]


def test_what_is_done_is_not_done_again(heads: Heads, calls):
    first = {way: fresh(heads).invert(way, slices(heads), "a") for way in ("w", "w+", "pti", "encoder")}
    calls.clear()
    for way, found in first.items():
        again = fresh(heads).invert(way, slices(heads), "a")
        np.testing.assert_array_equal(again.ws, found.ws)
    assert calls == []
    # A tuned generator comes back as it was; its steps are not taken again.
    np.testing.assert_allclose(
        drawn(fresh(heads).generator("pti"), first["pti"]), first["pti"].images, atol=1e-5
    )


def test_other_slices_or_steps_under_the_same_name_are_refused(heads: Heads, few_shot):
    fresh(heads).invert("w", slices(heads), "a")
    with pytest.raises(RunError, match="other settings"):
        fresh(heads).invert("w", slices(heads)[:2], "a")
    stage, settings = few_shot(heads.stage.run.folder, "inversion.steps=3")
    with pytest.raises(RunError, match=r"inversion\.steps"):
        Latents(stage, settings, heads.gan, heads.unlabelled).invert("w", slices(heads), "a")
    stage, settings = few_shot(heads.stage.run.folder, "inversion.copies=5")
    more = Latents(stage, settings, heads.gan, heads.unlabelled)
    assert len(more.invert("w", slices(heads), "a").ws) == 3  # more copies are further slices

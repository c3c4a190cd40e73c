"""What a dry run says before anything is trained, and what is said of a run that stopped."""

import json
import time

import pytest

from fewmask.cli import main
from fewmask.core.files import held
from fewmask.core.run import Run
from fewmask.recipes import fewshot, plan
from fewmask.recipes.fewshot_settings import FewshotSettings
from fewmask.recipes.plan import estimates, gan_work, generator_works
from fewmask.recipes.presets import build
from fewmask.recipes.settings import GANRunSettings, GANSettings

TINY = {"channel_base": 256, "channel_max": 8, "latent": 16, "mapping_layers": 1, "batch": 8}


def settings(**more):
    quality = {"images": 320, "samples": 32, "judgements": 3}
    layer = {"prepare": {"size": [16, 16]}, "gan": {**TINY, "images": 64}, "quality": quality}
    return build(GANRunSettings, [layer, more])


def command(capsys, *words) -> tuple[int, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return ended.value.code, printed.out + printed.err


def test_a_generator_s_plan_holds_all_that_takes_time():
    found = estimates(generator_works(settings(), final=128))
    assert [(one.work.what, one.work.times, one.work.images) for one in found] == [
        ("encoder that judges", 1, 320),
        ("GAN", 1, 64),
        ("judgements", 3, 32),
        ("drawing and judging at the end", 2, 128),
    ]
    assert all(one.seconds > 0 for one in found)
    without = generator_works(settings(quality={"images": 0}), final=128)
    assert [work.what for work in without] == ["GAN"]


@pytest.mark.parametrize(
    ("more", "times", "batches"),
    [
        ({}, {0: 1, 1: 2}, {2, 8}),
        ({"path_length": 2.0}, {0: 1, 1: 2, 4: 1}, {2, 8}),
        ({"parts": 2}, {0: 1, 1: 2}, {2, 4}),
    ],
)
def test_the_parts_and_the_dear_updates_are_measured(more, times, batches, monkeypatch):
    seen, channels = [], set()

    class Told(plan.StyleGANObjective):
        def update(self, batch, images_seen, minimise):
            seen.append((len(batch), images_seen // len(batch)))
            channels.add(batch.image.shape[1])
            return {}

    monkeypatch.setattr(plan, "StyleGANObjective", Told)
    gan_work(GANSettings(**TINY, **more), 16, channels=3).rate()
    minibatches = [minibatch for _, minibatch in seen]
    assert {one: minibatches.count(one) for one in minibatches} == times
    assert {count for count, _ in seen} == batches
    assert channels == {3}


def test_a_slow_network_is_measured_by_two_images_alone(monkeypatch):
    seen = []

    class Slow(plan.StyleGANObjective):
        def update(self, batch, images_seen, minimise):
            seen.append(len(batch))
            time.sleep(0.05)
            return {}

    monkeypatch.setattr(plan, "StyleGANObjective", Slow)
    monkeypatch.setattr(plan, "PATIENCE", 0.01)
    gan_work(GANSettings(**TINY), 16).rate()
    assert seen == [2]


def test_a_ready_generator_costs_no_training(tmp_path):
    (found,) = estimates([gan_work(GANSettings(ready=tmp_path), 16)])
    assert found.seconds == 0


def test_what_depends_on_a_generator_is_not_estimated(capsys):
    code, text = command(capsys, "run", "invert", "--preset", "tiny", "--dry-run", "threads=1")
    assert code == 0
    assert "not estimated: it depends on the generator" in text
    assert "0 minutes" not in text


def test_the_report_of_a_run_that_stopped_tells_what_its_log_told(tmp_path, capsys):
    run = Run.open(tmp_path / "run")
    step = run.step("gan")
    step.claim({"images": 1000, "design": {"ada_operations": ["xflip"]}})
    lines = [{"images": n, "loss_d": 0.5, "spread_fake": 0.01, "spread_real": 1.0} for n in (300, 400, 500)]
    step.stats_jsonl.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, text = command(capsys, "report", run.folder)
    assert code == 2
    assert "the run stopped before its page was made" in text
    assert "after 500 of 1000 images: loss_d 0.5" in text
    assert "ALARM collapse after 500 images" in text
    with held(run.lock):
        assert "another process is at work" in command(capsys, "report", run.folder)[1]


FEW = {
    "prepare": {"size": [16, 16]}, "gan": {**TINY, "images": 64}, "unet": {"widths": [4, 8], "images": 16},
    "inversion": {"copies": 2, "steps": 3, "pti_steps": 5, "encoder_images": 24}, "encoder": {"images": 32},
    "shots": {"counts": [1, 4], "draws": 3, "full": True}, "head": {"width": 8, "images": 40},
}  # fmt: skip


def few(**more):
    found = fewshot.plan(build(FewshotSettings, [FEW, more]))
    return {work.what: (work.times, work.images) for work in found}, found


def test_a_few_shot_plan_holds_one_work_per_way_to_invert():
    reads = ["generator@w+", "generator+image@w+", "generator@pti", "encoder+unet", "generator@encoder"]
    works, found = few(arms=["heads", "auto-shot"], head={"reads": reads}, autoshot={"reads": reads[0]})
    assert works == {
        "GAN": (1, 64),
        "self-supervised encoder": (1, 32),
        "inversion of labelled slices by W+": (1, 3 * 4 * 3),
        "inversion of every hundred test slices by W+": (1, 100),
        "inversion of training slices for PTI": (1, 256),
        "tuning of the generator (PTI)": (1, 8 * 5),
        "inversion of labelled slices by PTI": (1, 36),
        "inversion of every hundred test slices by PTI": (1, 100),
        "encoder of latents": (1, 24),
        "inversion of labelled slices by the encoder": (1, 36),
        "inversion of every hundred test slices by the encoder": (1, 100),
        **{f"head on {text}": (6, 40) for text in reads},
        "plain U-Net": (7, 16),
        "auto-shot": (6, 16),
    }
    assert len(works) == len(found)
    assert all(one.seconds > 0 for one in estimates(found))


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"arms": ["unet", "empty"]}, ["plain U-Net"]),
        ({"arms": ["mean teacher"], "shots": {"choice": "coverage"}},
         ["self-supervised encoder", "plain U-Net", "mean teacher"]),
        ({"arms": ["heads"], "head": {"reads": ["image"]}}, ["head on image", "plain U-Net"]),
        ({"arms": ["propagation"]}, ["registration of labelled slices", "plain U-Net", "propagation"]),
        ({"arms": ["auto-shot"], "autoshot": {"reads": "generator@w"}},
         ["GAN", "inversion of labelled slices by W", "inversion of every hundred test slices by W",
          "head on generator@w", "plain U-Net", "auto-shot"]),
    ],
)  # fmt: skip
def test_what_is_not_asked_for_is_not_planned(more, expected):
    assert list(few(**more)[0]) == expected


def test_every_registration_is_planned():
    works, found = few(arms=["propagation"], propagation={"targets": 7, "side": 16})
    assert works["registration of labelled slices"] == (1, 3 * 4 * 7)  # draws, the largest k, targets
    assert all(one.seconds > 0 for one in estimates(found))

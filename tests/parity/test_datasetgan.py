"""Our vote, uncertainty and image score are those of DatasetGAN's released code, from its heads' logits.

Its heads normalise batches, ours do not: the logits are taken from the reference.
"""

import math

import torch

from fewmask.synthesis.pairs import image_score, vote
from fewmask.synthesis.pixelhead import entropy, uncertainty


def test_parity_ensemble(ensemble_file, reference):
    r = reference(ensemble_file)
    height, width = r.config["hw"]
    logits = r.tensor("out/logits").transpose(1, 2)  # members, classes, pixels
    each = logits.reshape(len(logits), 1, -1, height, width).softmax(dim=2)
    assert each.shape[:3] == (r.config["models"], 1, r.config["classes"])
    in_nats = math.log(r.config["classes"])
    unsure = uncertainty(each)
    r.compare("out/entropy", entropy(each).flatten(1) * in_nats)
    r.compare("out/js", unsure.flatten() * in_nats)
    r.compare("out/uncertainty_top10pct", image_score(unsure)[0] * in_nats)
    votes = torch.stack([(each.argmax(dim=2) == k).sum(dim=(0, 1)) for k in range(each.shape[2])])
    tied = (votes == votes.amax(dim=0)).sum(dim=0) > 1
    ours, theirs = vote(each)[0], r.tensor("out/mode_label")
    # of classes with as many votes theirs takes the smallest number, ours the most probable
    assert tied.any()
    assert not tied.all()
    assert torch.equal(ours[~tied], theirs[~tied])
    assert torch.equal(votes.gather(0, ours[None]), votes.gather(0, theirs[None]))
    r.check("out/logits", "out/mode_label")

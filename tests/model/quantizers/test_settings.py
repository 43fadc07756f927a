"""Every setting of every quantizer, alone and inside of every composite, acts or is refused."""

import pytest

from vqkit.config import load
from vqkit.errors import VqkitError
from vqkit.settings import Config

from ...benchmarks import benchmark

correctness = benchmark("correctness")


@pytest.mark.parametrize("tree", list(correctness.subjects()), ids=str)
def test_every_setting_acts_or_is_refused(tree):
    before = correctness.result(tree)
    assert before is not None
    changes = dict(correctness.changes(tree))
    assert changes, "there is at least one setting"
    for name, changed in changes.items():
        after = correctness.result(changed)
        assert after is None or not correctness._same(before, after), name


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("{kind: vq, temperature: 2.0}", "temperature .* only with .*quantizer.estimator=gumbel"),
        (
            "{kind: vq, neighbourhood: 2.0, kmeans_iterations: 3}",
            "kmeans_iterations .*quantizer.neighbourhood=0: .* at 10",
        ),
        ("{kind: vq, neighbourhood: 0.3}", "shrinks to 0.4 cells"),
        ("{kind: vq, neighbourhood: 2.0, update: gradient}", "set update=ema"),
        (
            "{kind: gaussian_codebook, layout: draws, levels: [4, 4]}",
            r"levels .*quantizer.layout=bins: .* at \[8, 8, 8\]",
        ),
        (
            "{kind: residual, num_stages: 1, quantizer_dropout: 0.5}",
            "quantizer_dropout .*quantizer.num_stages above 1",
        ),
        (
            "{kind: product, group: {kind: residual, stage: {kind: vq, temperature: 2}}}",
            "quantizer.group.stage.temperature .*quantizer.group.stage.estimator=gumbel",
        ),
        ("{kind: residual, stage: {kind: fsq}, shared_codebook: true}", "kind=fsq learns nothing"),
        (
            "{kind: product, num_groups: 1, shared_codebook: true}",
            "no effect on a single quantizer",
        ),
    ],
)
def test_a_setting_without_effect_is_refused_with_what_it_needs(settings, message):
    with pytest.raises(VqkitError, match=message):
        load("emoji", [f"model.quantizer={settings}"], Config)

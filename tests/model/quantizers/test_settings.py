"""Every setting of every quantizer, alone and inside of every composite, acts or is refused."""

import pytest

from vqkit.config import GaussianCodebookConfig, ProductConfig, ResidualConfig, VQConfig

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
        (lambda: VQConfig(temperature=2.0), "temperature .* only with estimator=gumbel"),
        (
            lambda: VQConfig(neighbourhood=2.0, kmeans_iterations=3),
            "kmeans_iterations .* neighbourhood=0",
        ),
        (lambda: VQConfig(neighbourhood=0.3), "shrinks to 0.4 cells"),
        (lambda: VQConfig(neighbourhood=2.0, update="gradient"), "set update=ema"),
        (lambda: GaussianCodebookConfig(codebook_size=64), "codebook_size .* layout=draws"),
        (
            lambda: ResidualConfig(num_stages=1, quantizer_dropout=0.5),
            "quantizer_dropout .* num_stages above 1",
        ),
        (
            lambda: ResidualConfig(stage={"kind": "fsq"}, shared_codebook=True),
            "kind=fsq learns nothing",
        ),
        (
            lambda: ProductConfig(num_groups=1, shared_codebook=True),
            "no effect on a single quantizer",
        ),
    ],
)
def test_a_setting_without_effect_is_refused_with_what_it_needs(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()

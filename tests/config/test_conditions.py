"""Every setting of every section acts or is refused, and is refused only where it does not act."""

import re

import pytest
import yaml

from vqkit import config
from vqkit.config.conditions import idle_settings
from vqkit.errors import VqkitError
from vqkit.settings import Config, PairConfig, PriorConfig
from vqkit.signals.image.config import DataConfig
from vqkit.signals.image.source import open_images
from vqkit.training.tasks.prior import PriorTask

from ..benchmarks import benchmark
from ..untrained import STAGE, untrained

effects = benchmark("bench.effects")
ALONE = [(root, key) for root in effects.ROOTS for key in effects.audited(root)]
BESIDE = [
    (root, key, context)
    for root in effects.ROOTS
    for context in effects.contexts(root)
    for key in effects.turned(root, context)
]


@pytest.mark.parametrize(("root", "key"), ALONE)
def test_every_setting_acts_or_is_refused(root, key):
    assert effects.fault(root, key) is None


@pytest.mark.parametrize(("root", "key", "context"), BESIDE)
def test_what_makes_a_setting_act_or_not_is_what_its_condition_says(root, key, context):
    """Where a word, a switch or a zero turns a condition, the result says the same."""
    assert effects.fault(root, key, context) is None


def test_every_condition_is_turned_by_something():
    """But for those of `train.guard` of priors, which have no codebooks to watch, and of
    `model.causal`: the sets here are of images, tests/signals/audio has recordings.
    """
    shorts = [
        effects.short(root, "", context)
        for root in effects.ROOTS
        for context in ([], *effects.contexts(root))
    ]
    seen = [
        (one.section, one.names, one.holds)
        for short in shorts
        for one in effects.conditions(short)
        if not one.at.startswith("model.quantizer.")
    ]
    held = {(section, names) for section, names, holds in seen if holds}
    failed = {(section, names) for section, names, holds in seen if not holds}
    assert failed - held == {
        (PriorConfig, ("train.guard",)),
        (PairConfig, ("train.guard",)),
        (Config, ("model.causal",)),
    }
    assert held <= failed


SCHEDULED = "losses.kl={peak: 1, schedule: warmup, share: 0.1}"


@pytest.mark.parametrize(
    ("recipe", "overrides", "expected"),
    [
        ("emoji", ["train.optimizer=adamw"], {"train.muon_lr": 0.02}),
        # What Muon was for goes, and with it what only Muon has.
        ("emoji", ["model.network.kind=mlp"], {"train.optimizer": "adamw", "train.muon_lr": 0.02}),
        ("denoise", ["data.noise.sigma=0"], {"data.noise.others": 0.4}),
        ("variational", ["model.variational=false"], {"losses.kl.peak": 1, "losses.kl.share": 0.5}),
        ("rates", ["model.quantizer.num_stages=1"], {"model.quantizer.quantizer_dropout": 0}),
        ("likelihood", ["model.quantizer.kind=fsq"], {"losses.commitment.peak": 0.25}),
    ],
)
def test_what_an_override_leaves_without_effect_goes_back_to_its_default(
    recipe, overrides, expected
):
    changed = config.load(recipe, overrides, Config)
    found = {key: value for key, value, _ in effects.settings(changed)}
    assert {key: found[key] for key in expected} == expected
    assert not idle_settings(changed)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["train.optimizer=adamw", "train.muon_lr=0.1"],
            "train.muon_lr has no effect here, it acts only with train.optimizer=muon: set that "
            "too, or leave train.muon_lr at 0.02",
        ),
        # A section that is given in one piece is as if each of its settings was.
        (["data.noise={others: 0.1}"], "only with data.noise.sigma above 0"),
        ([SCHEDULED], "losses.kl has no effect here, it acts only with model.variational=true"),
        (["model.variational=true", "losses.kl={peak: 1, share: 0.1}"], "losses.kl.schedule="),
        (["model.causal=true"], "only with networks of recordings, of model.network.kind=vocoder"),
        (["losses.codebook=2"], "kind=vq and update=gradient or kind=simvq"),
        (["model.quantizer.kind=fsq", "losses.commitment=1"], "kind=vq or kind=simvq or kind=lfq"),
    ],
)
def test_what_a_user_sets_in_vain_is_refused_with_what_it_needs(overrides, sentence, tmp_path):
    with pytest.raises(VqkitError, match=re.escape(sentence)):
        config.load("emoji", overrides, Config)
    # In a file of one's own, too, whatever overrides say of it.
    tree = config.load("emoji", (), Config).model_dump(mode="json")
    for override in overrides:
        key, _, value = override.partition("=")
        *parents, last = key.split(".")
        holder = tree
        for parent in parents:
            holder = holder[parent]
        holder[last] = yaml.safe_load(value)
        if last == "kind":
            tree["model"]["quantizer"] = {"kind": value}
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(tree))
    with pytest.raises(VqkitError, match=re.escape(sentence)):
        config.load(file, ["train.steps=7"], Config)


@pytest.mark.parametrize("value", [0.02, 0.04])
def test_an_artifact_loads_whatever_it_holds_and_a_recipe_where_it_holds_defaults(value, tmp_path):
    tree = config.load("emoji", ["train.optimizer=adamw"], Config).model_dump(mode="json")
    tree["train"]["muon_lr"] = value
    assert config.from_tree(tree, "config.json", Config).train.muon_lr == value
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(tree))
    if value == 0.02:
        assert config.load(file, (), Config).model_dump(mode="json") == tree
    else:
        with pytest.raises(VqkitError, match="recipe.yaml: train.muon_lr has no effect"):
            config.load(file, (), Config)


def test_an_order_of_several_codebooks_is_refused_for_one(few_images):
    data = open_images(few_images, DataConfig(image_size=(16, 16)), 0)
    delayed = config.load("prior", ["network.order=delayed"], PriorConfig)
    PriorTask(untrained().artifact, data, delayed)
    with pytest.raises(VqkitError, match="no effect on codes of a single codebook"):
        PriorTask(untrained(quantizer=STAGE).artifact, data, delayed)

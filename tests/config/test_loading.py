import importlib.util
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

from vqkit import cli, config
from vqkit.config.quantizers import QUANTIZERS
from vqkit.errors import VqkitError
from vqkit.settings import Config, PairConfig, PriorConfig

ROOT = Path(__file__).parents[2]


def make_recipes():
    spec = importlib.util.spec_from_file_location(
        "make_recipes", ROOT / "scripts" / "make_recipes.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_shipped_priors_and_pairs_are_up_to_date():
    recipes = make_recipes()
    for root, text in ((PriorConfig, recipes.prior_text), (PairConfig, recipes.pair_text)):
        for name in config.recipe_names(root):
            assert config.recipe_text(name, root) == text(name)


def test_there_is_a_file_for_every_recipe_that_is_described_and_no_other():
    assert sorted(make_recipes().RECIPES) == config.recipe_names(Config)
    assert sorted(make_recipes().PRIORS) == config.recipe_names(PriorConfig)
    assert sorted(make_recipes().PAIRS) == config.recipe_names(PairConfig)


@pytest.mark.parametrize("name", config.recipe_names(Config))
def test_shipped_recipes_are_complete_commented_and_up_to_date(name):
    assert config.recipe_text(name, Config) == make_recipes().text(name)
    settings = config.load(name, (), Config)
    assert yaml.safe_load(config.recipe_text(name, Config)) == settings.model_dump(mode="json")
    for line in config.dump(settings).splitlines():
        explained = "#" in line or line.endswith(":") or line.strip().startswith("kind:")
        assert (
            explained or "#" in config.dump(settings).split(line)[0].rstrip().rsplit("\n", 1)[-1]
        ), line


def test_dump_is_read_back_unchanged(tmp_path):
    settings = config.load(
        "images",
        [
            "model.quantizer.kind=fsq",
            "train.max_minutes=2.5",
            "data.background=[1,2,3]",
            "train.lr=3e-4",
        ],
        Config,
    )
    file = tmp_path / "mine.yaml"
    file.write_text(config.dump(settings))
    assert config.load(file, (), Config) == settings


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lrr=1", "unknown key 'lrr', did you mean 'lr'? in train"),
        ("sed=1", "unknown key 'sed', did you mean 'seed'?"),
        (
            "model.quantizer.codebok_size=3",
            "unknown key 'codebok_size', did you mean 'codebook_size'?",
        ),
        ("data.augment.flp=true", "unknown key 'flp', did you mean 'flip'?"),
        ("train.lr=-1", "train.lr: input should be greater than 0, got -1"),
        ("train.steps=abc", "train.steps: input should be a valid integer"),
        ("losses.distortion=ms", "losses.distortion: input should be 'mse'"),
        ("model.quantizer.kind=vqq", "'none', 'vq', 'simvq', 'fsq'"),
        (
            "data.image_size=63",
            "data.image_size: write a list in brackets, such as [63, 63]; got 63",
        ),
        ("train.lr", "written key.subkey=value"),
        ("train.lr.x=1", "'lr' is a value, not a section"),
    ],
)
def test_mistakes_are_named_with_a_remedy(override, message):
    with pytest.raises(VqkitError) as caught:
        config.load("images", [override], Config)
    assert message in str(caught.value)


@pytest.mark.parametrize("depth", [5, 100])
def test_hierarchies_are_bounded_before_they_are_built(depth):
    tree: dict = {"kind": "vq"}
    for _ in range(depth):
        tree = {"kind": "hierarchical", "grid_dims": 3, "top": tree}
    with pytest.raises(VqkitError, match="at most 4096 codes") as caught:
        config.from_tree({"model": {"quantizer": tree}}, "settings", Config)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(("dims", "most"), [(1, 12), (2, 6), (3, 4)])
def test_pyramids_are_bounded_before_they_are_built(dims, most):
    for grids in (most, most + 1):
        tree = {"kind": "pyramid", "grid_dims": dims, "num_grids": grids}
        settings = {"model": {"quantizer": tree}}
        if grids == most:
            assert config.from_tree(settings, "settings", Config).model.quantizer.num_grids == most
            continue
        with pytest.raises(VqkitError, match="at most 4096 codes|less than or equal to 12"):
            config.from_tree(settings, "settings", Config)


def test_every_mistake_is_named_at_once():
    with pytest.raises(VqkitError) as caught:
        config.load("images", ["train.lrr=1", "train.steps=0"], Config)
    assert "lrr" in str(caught.value) and "train.steps" in str(caught.value)


def test_yaml_reads_exponents_without_a_point_as_text_but_we_read_numbers():
    assert yaml.safe_load("1e-3") == "1e-3"
    assert config.load("images", ["train.lr=1e-3"], Config).train.lr == 0.001


def test_a_new_kind_starts_its_section_afresh_whatever_the_order():
    settings = config.load(
        "images", ["model.quantizer.levels=[4,4]", "model.quantizer.kind=fsq"], Config
    )
    assert settings.model.quantizer == config.FSQConfig(levels=(4, 4))


@pytest.mark.parametrize("order", [1, -1])
def test_the_kind_of_an_inner_section_does_not_get_lost_whatever_the_order(order):
    overrides = [
        "model.quantizer.kind=product",
        "model.quantizer.group.kind=residual",
        "model.quantizer.group.stage.kind=fsq",
        "model.quantizer.group.stage.levels=[4,4]",
    ]
    found = config.load("images", overrides[::order], Config).model.quantizer
    assert found == config.ProductConfig(
        group=config.ResidualConfig(stage=config.FSQConfig(levels=(4, 4)))
    )


@pytest.mark.parametrize(
    ("overrides", "missing"),
    [
        (
            ["model.network={width: 8}"],
            "model.network.kind is missing: set it too, to one of conv, patch, mlp",
        ),
        (
            ["model.quantizer={bits: 3}"],
            "model.quantizer.kind is missing: set it too, to one of none, vq, simvq",
        ),
        (
            ["model.quantizer.kind=residual", "model.quantizer.stage.estimator=rotation"],
            "model.quantizer.stage.kind is missing: set it too, to one of vq, simvq, fsq",
        ),
        (
            ["model.quantizer.kind=product", "model.quantizer.group.code_dim=3"],
            "model.quantizer.group.kind is missing: set it too, to one of vq, simvq, fsq, lfq, bsq",
        ),
        (
            ["model.quantizer.kind=hierarchical", "model.quantizer.bottom.code_dim=3"],
            "model.quantizer.bottom.kind is missing",
        ),
        (
            [
                "model.quantizer={kind: hierarchical, top: {kind: hierarchical, "
                "top: {kind: residual, stage: {bits: 3}}}}"
            ],
            "model.quantizer.top.top.stage.kind is missing: set it too, to one of vq, simvq",
        ),
    ],
)
def test_a_missing_kind_is_named_at_any_depth(overrides, missing):
    with pytest.raises(VqkitError, match=re.escape(missing)):
        config.load("images", overrides, Config)


def test_keys_of_deep_sections_are_suggested():
    residual = "{kind: residual, stage: {kind: fsq, levls: [3]}}"
    tree = f"{{kind: hierarchical, top: {{kind: hierarchical, top: {residual}}}}}"
    expected = "unknown key 'levls', did you mean 'levels'? in model.quantizer.top.top.stage"
    with pytest.raises(VqkitError, match=re.escape(expected)):
        config.load("images", [f"model.quantizer={tree}"], Config)


def test_settings_that_contradict_one_another_are_said_without_the_whole_section():
    with pytest.raises(VqkitError) as caught:
        config.load(
            "images", ["model.quantizer.neighbourhood=3", "model.quantizer.update=gradient"], Config
        )
    assert str(caught.value).endswith(
        "model.quantizer: a neighbourhood works on moving averages: set update=ema"
    )


def test_recipes_of_a_signal_are_few():
    signals = [config.load(name, (), Config).data.signal for name in config.recipe_names(Config)]
    assert max(Counter(signals).values()) <= 12


def test_listed_quantizers_can_be_typed_as_they_are_listed(capsys):
    """Every override of `vqkit recipes --quantizers` is accepted, and sets what is the default."""
    assert cli.main(["recipes", "--quantizers"]) == 0
    listed = capsys.readouterr().out.split("\nType settings")[0]
    found = {}
    for block in listed.strip().split("\n\n"):
        words = re.findall(r"^ {2,4}(\S+?=(?:[\[{].*?[\]}]|\S+))(?: |$)", block, re.MULTILINE)
        kind = words[0].removeprefix("model.quantizer.kind=")
        assert block.startswith(f"{kind}: ")
        overrides = [words[0], *(f"model.quantizer.{word}" for word in words[1:])]
        found[kind] = config.load("emoji", overrides, Config).model.quantizer
        assert len(words) == len(type(found[kind]).model_fields)
    assert found == {section.model_fields["kind"].default: section() for section in QUANTIZERS}


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "a: [1"])
def test_a_file_that_is_no_recipe(tmp_path, text):
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(VqkitError, match="broken.yaml"):
        config.load(file, (), Config)


def test_unknown_recipe_suggests_one():
    with pytest.raises(VqkitError, match="did you mean 'emoji'"):
        config.load("emojis", (), Config)


def test_a_recipe_of_another_verb_is_said_to_be_one():
    with pytest.raises(VqkitError, match="recipe 'prior' is one of 'vqkit train-prior'"):
        config.load("prior", (), Config)

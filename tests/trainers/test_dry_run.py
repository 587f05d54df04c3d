"""What extension files define is tried on real images before the first trial."""

import io
import json
import shutil
import textwrap

import pytest

from sweeper.space.extension_keys import BUILT_IN
from trainers import dry_run, extensions
from trainers.config import Recipe
from trainers.extensions import ExtensionFile
from trainers.models import preflight

HEAD = "import torch\nfrom torch import nn\n"


@pytest.fixture(autouse=True)
def _forgotten():
    yield
    extensions.use([])


@pytest.fixture
def tried(photos, tmp_path):
    """What the dry run says of a file and a recipe: `what` and the line of the file."""

    def ask(code, metric="overall_accuracy", **train):
        path = tmp_path / "mine.py"
        path.write_text(HEAD + textwrap.dedent(code))
        extensions.use([ExtensionFile.read(path)], BUILT_IN)
        base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "batch_size": 16, "epochs": 1}
        found = dry_run.problems([Recipe.model_validate({"data": photos, "metric": metric, "train": base | train})])
        assert all(one.exit_code == 2 and one.help for one in found)
        assert all(one.where.startswith(f"{path}:") for one in found)
        return [f"{one.where.rpartition(':')[2]}: {one.what}" for one in found]

    return ask


LOSSES = {
    "return nn.functional.cross_entropy(logits, labels, reduction='none')": "",
    "return nn.functional.cross_entropy(logits, labels)": "",
    "return logits.detach().mean(1)": "4: the loss mine has no gradient",
    "return torch.zeros(len(labels), requires_grad=True)": "4: the loss mine has no gradient",
    "return logits.mean(1) / 0": "4: the loss mine is nan for random logits",
    "return (logits - logits).mean(1).sqrt()": "4: the gradient of the loss mine is not finite",
    "assert len(logits) == 8; return logits.mean(1)": "5: mine of losses failed: AssertionError",
    "raise SystemExit(0)": "5: mine of losses failed: SystemExit: 0",
    "return 0 * logits.mean(1)": "",
    "return logits": "4: the loss mine returns a tensor [8, 3] for logits [8, 3]",
    "return 1.0": "4: the loss mine returns float for logits [8, 3]",
    "return logits + labels": "5: mine of losses failed: RuntimeError: ",
    "return (logits * torch.rand(len(logits), 1)).sum(1)": "4: mine of losses gives another loss the second time",
}


@pytest.mark.parametrize(("body", "said"), LOSSES.items(), ids=range(len(LOSSES)))
def test_a_loss_is_finite_has_a_gradient_and_gives_a_figure_an_image(tried, body, said):
    found = tried(f"\ndef mine(logits, labels):\n    {body}\nlosses = {{'mine': mine}}\n", loss={"name": "mine"})
    assert len(found) == bool(said)
    assert not said or found[0].startswith(said)


@pytest.mark.parametrize(
    "weighing",
    [{"loss": {"class_weights": "inverse_frequency"}}, {"augment": {"mixup": 0.2}}, {"augment": {"cutmix": 1}}],
)
def test_a_mean_over_the_batch_cannot_be_weighed_by_image(tried, weighing):
    code = (
        "def mine(logits, labels):\n    return nn.functional.cross_entropy(logits, labels)\nlosses = {'mine': mine}\n"
    )
    part = next(iter(weighing.values()))
    (found,) = tried(code, **{**weighing, "loss": {"name": "mine", **weighing.get("loss", {})}})
    assert found == f"3: the loss mine returns one figure for the batch, but {next(iter(part))} weights its images"


METRICS = {
    "float(probabilities.max())": "",
    "None if len(probabilities) else 0": "3: the metric mine is nan for random probabilities",
    "float('nan')": "3: the metric mine is nan for random probabilities",
    "probabilities.mean(1)": "3: the metric mine returns an array [24]",
    "'good'": "3: the metric mine returns str",
    "probabilities.nothing": "4: mine of metrics failed: AttributeError: ",
    "float(torch.rand(()))": "3: mine of metrics gives another figure the second time",
}


@pytest.mark.parametrize(("value", "said"), METRICS.items(), ids=range(len(METRICS)))
def test_a_metric_gives_a_figure(tried, value, said):
    code = f"def mine(probabilities, labels):\n    return {value}\nmetrics = {{'mine': mine}}\n"
    found = tried(code, metric="mine")
    assert len(found) == bool(said)
    assert not said or found[0].startswith(said)


MODEL = """
class Mine(nn.Module):
    {features}
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
    def forward(self, images):
        return {forward}
models = {{"mine": Mine}}
"""
MODELS = {
    ("num_features = 4", "self.layer(images.mean((2, 3)))"): "",
    ("pass", "self.layer(images.mean((2, 3)))"): "4: the model mine has no num_features",
    (
        "num_features = 5",
        "self.layer(images.mean((2, 3)))",
    ): "4: the model mine gives [8, 4] for 8 images instead of [8, 5]",
    ("num_features = 3", "images"): "4: the model mine gives [8, 3, 32, 32] for 8 images instead of [8, 3]",
    ("num_features = 4", "self.layer(images)"): "10: mine of models failed: RuntimeError: ",
}


@pytest.mark.parametrize(("parts", "said"), MODELS.items(), ids=range(len(MODELS)))
def test_a_model_gives_as_many_features_as_it_says(tried, parts, said):
    found = tried(MODEL.format(features=parts[0], forward=parts[1]), backbone="mine")
    assert len(found) == bool(said)
    assert not said or found[0].startswith(said)


def test_a_model_is_drawn_alike_from_the_same_seed(tried):
    code = """
    import random
    class Mine(nn.Module):
        num_features = 3
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(random.random()))
        def forward(self, images):
            return self.scale * images.mean((2, 3))
    models = {"mine": Mine}
    """
    (found,) = tried(code, backbone="mine")
    assert found.startswith("5: mine of models gives other weights in scale the second time")


def test_a_function_may_make_a_model_and_anything_else_is_refused(tried):
    (found,) = tried("def mine(width: int = 3):\n    return width\nmodels = {'mine': mine}\n", backbone="mine")
    assert found == "3: mine of models makes int instead of a torch.nn.Module"


HEADS = {"sum(sizes)": "", "sizes[0]": "3: the head mine gives [8, 3] for 8 images instead of [8, 5]"}


@pytest.mark.parametrize(("width", "said"), HEADS.items())
def test_a_head_gives_the_logits_of_all_categories(tried, width, said):
    code = f"def mine(features, sizes):\n    return nn.Linear(features, {width})\nheads = {{'mine': mine}}\n"
    assert tried(code, head={"name": "mine"}) == [said] * bool(said)


AUGMENTATIONS = {
    "return image[::-1].copy()": "",
    "return image[:4]": "3: the augmentation mine returns uint8 [4, 32, 3] for a uint8 image [32, 32, 3]",
    "return image / 255": "3: the augmentation mine returns float64 [32, 32, 3] for a uint8 image [32, 32, 3]",
    "torch.rand(1); return image": "3: the augmentation mine uses the global random numbers of torch",
    "return image + missing": "4: mine of augmentations failed: NameError: ",
}


@pytest.mark.parametrize(("body", "said"), AUGMENTATIONS.items(), ids=range(len(AUGMENTATIONS)))
def test_an_augmentation_keeps_size_and_type_and_its_own_random_numbers(tried, body, said):
    code = f"def mine(image, generator):\n    {body}\naugmentations = {{'mine': mine}}\n"
    found = tried(code, augment={"mine": {}})
    assert len(found) == bool(said)
    assert not said or found[0].startswith(said)


def test_a_name_of_timms_is_taken(photos, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        HEAD + MODEL.format(features="num_features = 4", forward="images").replace('"mine"', '"resnet18"')
    )
    extensions.use([ExtensionFile.read(path)], BUILT_IN)
    recipe = Recipe.model_validate({"data": photos, "train": {"backbone": "resnet18", "pretrained": False}})
    (found,) = preflight.problems([recipe])
    assert found.what == "the name resnet18 of models is taken: timm has a model resnet18"


def test_a_loss_of_flags_is_tried_with_flags_and_no_class_weights_reach_it(photos, tmp_path):
    shutil.copytree(photos.root, tmp_path / "photos")
    table = tmp_path / "photos" / "labels.csv"
    table.write_text(table.read_text().replace(",red,", ",red|green,"))
    data = photos.model_copy(update={"root": str(tmp_path / "photos"), "multi": {"colour": ()}})
    path = tmp_path / "mine.py"
    path.write_text(
        HEAD
        + "def mine(logits, labels):\n"
        + "    if labels.ndim == 2:\n"
        + "        return nn.functional.binary_cross_entropy_with_logits(logits, labels.float())\n"
        + "    return nn.functional.cross_entropy(logits, labels)\n"
        + "losses = {'mine': mine}\n"
    )
    extensions.use([ExtensionFile.read(path)], BUILT_IN)

    def said(**train):
        base = {"backbone": "test_resnet", "pretrained": False, "image_size": 32, "epochs": 1}
        found = dry_run.problems([Recipe.model_validate({"data": data, "train": base | train})])
        return [one.what for one in found]

    assert said(loss={"name": "mine"}) == []
    assert said(loss={"name": "mine"}, augment={"mixup": 0.2}) == [
        "the loss mine returns one figure for the batch, but mixup weights its images"
    ]
    assert said(loss={"name": "mine", "class_weights": "inverse_frequency"}) == [
        "class_weights do not apply to colour, which has several answers, in the loss mine"
    ]


def test_what_code_prints_is_no_part_of_the_answer(photos, tmp_path, monkeypatch, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        HEAD
        + "def mine(probabilities, labels):\n    print('looking', end=' ')\n    return 1.0\n"
        + "metrics = {'mine': mine}\n"
    )
    train = {"backbone": "test_resnet", "pretrained": False, "image_size": 32}
    recipe = Recipe.model_validate({"data": photos, "metric": "mine", "train": train})
    asked = {"recipes": [recipe.model_dump(mode="json")], "extensions": [str(path)]}
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(asked)))
    dry_run.main()
    out, err = capsys.readouterr()
    assert (out, "looking" in err) == ("[]\n", True)

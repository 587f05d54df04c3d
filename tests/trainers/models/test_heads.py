import numpy as np
import pytest
import torch
from torch import nn

from trainers.config import TrainConfig
from trainers.data.table import Category
from trainers.evaluation.metrics import scores
from trainers.models import heads, network

FASHION = [7, 3, 3, 4, 6, 3]
NAMES = sorted(heads.NEEDS)
COUNTS = (
    "768/192 853/175 334/65 422/77 109/13 2408/458 106/20 | 1523/301 862/168 2615/531 | 488/100 951/173 3561/727 |"
)
COUNTS += "2086/387 826/173 19/2 2069/438 | 310/56 702/146 3399/680 105/16 48/10 436/92 | 749/129 279/70 3972/801"


def config(**more):
    return TrainConfig(**({"backbone": "test_resnet", "pretrained": False, "image_size": 64} | more))


def head(name, width, sizes, **more):
    return heads.build(config(head={"name": name} | more).head, width, sizes)


def parameters(backbone, name, *, size=224):
    with torch.device("meta"):
        net = network.build(config(backbone=backbone, head=name, image_size=size), FASHION)
    return sum(parameter.numel() for parameter in net.parameters())


def test_the_winner_of_2023_has_as_many_parameters_as_published():
    assert parameters("convnext_large.fb_in1k", "relu_logits") == 197_793_362


def test_the_swin_of_2024_has_as_many_parameters_as_published():
    assert parameters("swin_large_patch4_window7_224", "query2label") == 217_465_646


def test_the_resnet_of_2024_has_as_many_parameters_as_published():
    assert parameters("resnet50", "category_mlp") == 29_826_138


def test_the_van_of_2024_has_as_many_parameters_as_published_with_its_unused_classifier():
    unused = 256 * 1000 + 1000
    assert parameters("van_b0", "shared_mlp") + unused == 4_174_426


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "van_b0"])
def test_every_part_of_every_head_learns_on_every_kind_of_backbone(backbone, name):
    small = {"width": 32, "feed_forward": 64} if name == "query2label" else {}
    net = network.build(config(backbone=backbone, head={"name": name} | small), [3, 2])
    before = {key: value.clone() for key, value in net.head.named_parameters()}
    logits = net(torch.randn(4, 3, 64, 64))
    assert logits.shape == (4, 5)
    logits.square().sum().backward()
    torch.optim.AdamW(net.parameters(), lr=0.01).step()
    assert not [key for key, value in net.head.named_parameters() if torch.equal(value, before[key])]


def test_the_linear_head_keeps_the_keys_of_finished_models():
    assert list(head("linear", 8, [3, 2]).state_dict()) == ["1.weight", "1.bias"]


def test_heads_on_logits_keep_the_backbones_own_classifier():
    net = network.build(config(backbone="test_vit", head="relu_logits"), [3])
    assert net.backbone.head.out_features == net.head[1].in_features == 1000


def test_relu_logits_are_a_linear_layer_over_what_the_backbone_finds_likely():
    module, scores = head("relu_logits", 10, [3, 2]), torch.randn(4, 10)
    expected = scores.clamp_min(0) @ module[1].weight.T + module[1].bias
    torch.testing.assert_close(module(scores), expected)


@pytest.mark.parametrize(("layers", "widths"), [(0, []), (2, [512, 256]), (4, [512, 256, 128, 64])])
def test_logits_mlp_has_as_many_hidden_layers_as_asked_for(layers, widths):
    module = head("logits_mlp", 1000, [3, 2], layers=layers)
    assert [part.out_features for part in module if isinstance(part, nn.Linear)] == widths
    assert [part[1].in_features for part in module[-1].parts] == [[1000, *widths][-1]] * 2


def test_the_shared_mlp_drops_out_between_its_hidden_layers_only():
    kinds = [type(part).__name__ for part in head("shared_mlp", 256, FASHION)]
    assert kinds == ["Linear", "ReLU", "Dropout"] * 2 + ["Linear", "ReLU", "Linear"]


def test_a_categorys_own_layers_see_nothing_of_anothers():
    module = head("category_mlp", 8, [3, 2]).eval()
    features = torch.randn(4, 8)
    before = module(features)
    nn.init.zeros_(module[1].parts[1][0].weight)
    after = module(features)
    assert torch.equal(before[:, :3], after[:, :3])
    assert not torch.equal(before[:, 3:], after[:, 3:])


def test_the_majority_scores_what_the_challenge_says_it_does():
    pairs = [[tuple(map(int, pair.split("/"))) for pair in part.split()] for part in COUNTS.split("|")]
    train, val = ([[pair[side] for pair in part] for part in pairs] for side in (0, 1))
    net = network.build(config(backbone="majority"), FASHION)
    network.set_class_counts(net, train, [5000] * 6, [False] * 6)
    logits = net(torch.zeros(sum(val[0]), 3, 16, 16)).detach().numpy()
    labels = np.stack([np.repeat(np.arange(len(part)), part) for part in val], axis=1)
    categories = [Category(f"c{k}", tuple(map(str, range(n)))) for k, n in enumerate(FASHION)]
    assert scores(logits, labels, categories, loss=0.0).mean_class_accuracy == pytest.approx(6 / 26)


def test_the_majority_gives_the_log_frequencies_and_no_training_changes_them():
    net = network.build(config(backbone="majority"), [2, 2])
    network.set_class_counts(net, [[1, 3], [4, 0]], [4, 4], [False] * 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1.0)
    before = net(torch.randn(3, 3, 16, 16))
    before.square().sum().backward()
    optimizer.step()
    assert torch.equal(net(torch.randn(3, 3, 16, 16)), before)
    torch.testing.assert_close(before[0, :2].exp(), torch.tensor([0.25, 0.75]))
    assert torch.isfinite(before).all()


def test_the_majority_gives_the_log_odds_of_several_answers():
    net = network.build(config(backbone="majority"), [3])
    network.set_class_counts(net, [[2, 4, 0]], [4], [True])
    odds = net(torch.zeros(1, 3, 16, 16))[0].exp()
    torch.testing.assert_close(odds, torch.tensor([1.0, 8.0, 1 / 7]))


def test_the_majority_is_saved_with_what_it_knows():
    net, other = (network.build(config(backbone="majority"), [2]) for _ in range(2))
    network.set_class_counts(net, [[1, 3]], [4], [False])
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.head.prior, net.head.prior)


def test_a_network_that_learns_needs_no_telling_of_the_counts():
    net = network.build(config(), [2])
    before = net.state_dict()
    network.set_class_counts(net, [[1, 3]], [4], [False])
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())

import json
import os
import subprocess
import sys

import pytest
import timm
import torch

from sweeper.engine.preflight import preflight
from sweeper.space.defaults import family
from sweeper.study.gpu_memory import MIN_MICRO_BATCH
from tests.support.photos import SHARED
from trainers.config import Recipe, TrainConfig
from trainers.data.table import Category
from trainers.loading.loader import Batch
from trainers.models import heads, network
from trainers.models.preflight import problems
from trainers.support.checkpoint import save_weights
from trainers.support.errors import DataError, EnvironmentFault


def config(**more):
    return TrainConfig(**({"backbone": "test_resnet", "pretrained": False, "image_size": 32} | more))


def recipe(**more):
    return Recipe(data={"root": "x"}, train=config(**more))


def only(**more):
    found = problems([recipe(**more)])
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_a_network_gives_one_logit_a_class(backbone):
    net = network.build(config(backbone=backbone, image_size=64), [3, 2]).eval()
    assert net(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_the_seed_decides_the_weights():
    one, same, other = (network.build(config(seed=seed), [3]).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


TALL = {"height": 96, "width": 64}


@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "vit_tiny_patch16_224"])
def test_a_backbone_takes_tall_images(backbone):
    found = config(backbone=backbone, image_size=TALL)
    assert problems([Recipe(data={"root": "."}, train=found)]) == []
    with torch.inference_mode():
        assert network.build(found, [3, 2]).eval()(torch.zeros(2, 3, 96, 64)).shape == (2, 5)


def test_a_backbone_that_takes_no_tall_images_is_named_with_its_size_and_those_that_fit():
    problem = only(backbone="hiera_tiny_224", image_size={"height": 250, "width": 64})
    assert "cannot take images of 250 x 64 pixels" in problem.what
    assert problem.help.startswith("sizes that fit: ")


def test_a_transformer_takes_the_recipes_image_size():
    net = network.build(config(backbone="test_vit", image_size=96), [3]).eval()
    assert net(torch.randn(1, 3, 96, 96)).shape == (1, 3)


def test_local_weights_are_loaded_without_their_classifier(tmp_path):
    donor = timm.create_model("test_resnet", num_classes=10)
    save_weights(tmp_path / "w.safetensors", donor.state_dict(), {})
    net = network.build(config(pretrained=True, weights=str(tmp_path / "w.safetensors")), [3])
    assert torch.equal(net.backbone.conv1[0].weight, donor.conv1[0].weight)


def test_a_folder_of_weights_is_searched_by_backbone(tmp_path):
    donor = timm.create_model("test_resnet", num_classes=0)
    save_weights(tmp_path / "test_resnet.safetensors", donor.state_dict(), {})
    net = network.build(config(pretrained=True, weights=str(tmp_path)), [3])
    assert torch.equal(net.backbone.conv1[0].weight, donor.conv1[0].weight)


def test_weights_of_another_network_are_refused(tmp_path):
    save_weights(tmp_path / "w.safetensors", timm.create_model("test_vit").state_dict(), {})
    with pytest.raises(EnvironmentFault, match=r"conv1.0.weight is missing"):
        network.build(config(pretrained=True, weights=str(tmp_path / "w.safetensors")), [3])


@pytest.mark.parametrize("wrap", [dict, lambda w: {"state_dict": w, "epoch": 3}, lambda w: {"model": w}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_that_torch_saved_are_read_wherever_they_lie(tmp_path, wrap, prefix):
    donor = timm.create_model("test_resnet", num_classes=10)
    torch.save(wrap({prefix + key: value for key, value in donor.state_dict().items()}), tmp_path / "w.pth")
    net = network.build(config(pretrained=True, weights=str(tmp_path / "w.pth")), [3])
    assert torch.equal(net.backbone.conv1[0].weight, donor.conv1[0].weight)


class Evil:
    """What a file would run when it is unpickled: leave a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".tar"])
def test_nothing_in_a_weights_file_is_run(tmp_path, suffix):
    path, trace = tmp_path / f"w{suffix}", tmp_path / "trace"
    torch.save({"state_dict": Evil(trace)}, path)
    with pytest.raises(EnvironmentFault, match="cannot read weights"):
        network.build(config(pretrained=True, weights=str(path)), [3])
    assert not trace.exists()
    assert only(pretrained=True, weights=str(path)).exit_code == 3


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 half an archive"])
def test_a_broken_weights_file_is_an_environments_fault(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    assert only(pretrained=True, weights=str(tmp_path / "w.pth")).what.startswith("cannot read weights")


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": {}}, {"model": "resnet", "w": torch.ones(2)}])
def test_a_file_without_tensors_by_name_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    assert "does not hold named tensors" in only(pretrained=True, weights=str(tmp_path / "w.pth")).what


def test_weights_are_read_once_however_many_networks_begin_with_them(tmp_path):
    donor = timm.create_model("test_resnet", num_classes=0)
    save_weights(tmp_path / "w.safetensors", donor.state_dict(), {})
    path = tmp_path / "w.safetensors"
    first, before = network.build(config(pretrained=True, weights=str(path)), [3]), path.stat()
    other = tmp_path / "other"  # nothing that could be read again, with the same stamp
    other.write_bytes(bytes(before.st_size))
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    first.backbone.conv1[0].weight.data.zero_()
    again = network.build(config(pretrained=True, weights=str(path)), [3])
    assert torch.equal(again.backbone.conv1[0].weight, donor.conv1[0].weight)


def test_the_head_is_drawn_alike_whether_the_backbone_is_drawn_or_filled(tmp_path):
    save_weights(tmp_path / "w.safetensors", timm.create_model("test_resnet", num_classes=0).state_dict(), {})
    filled = network.build(config(pretrained=True, weights=str(tmp_path / "w.safetensors")), [3, 2])
    for name, tensor in network.build(config(), [3, 2]).head.state_dict().items():
        assert torch.equal(filled.head.state_dict()[name], tensor)


PUBLISHED = """
import torch
from trainers.config import TrainConfig
from trainers.models import heads, network
config = TrainConfig(backbone="test_resnet.r160_in1k", pretrained=True, image_size=32)
nets = [network.build(config, [3]) for _ in range(2)]
assert network._published.cache_info().misses == 1
print(nets[1].backbone.conv1[0].weight.detach().double().sum().item())
"""


@pytest.mark.process
def test_published_weights_come_from_the_hubs_cache_once(tmp_path):
    donor = timm.create_model("test_resnet")
    place = tmp_path / "hub" / "models--timm--test_resnet.r160_in1k"
    (place / "snapshots" / "abc").mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    save_weights(place / "snapshots" / "abc" / "model.safetensors", donor.state_dict(), {})
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run([sys.executable, "-c", PUBLISHED], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) == pytest.approx(donor.conv1[0].weight.detach().double().sum().item(), abs=1e-6)


def test_weights_without_the_counters_of_batch_norms_are_accepted(tmp_path):
    weights = timm.create_model("test_resnet", num_classes=0).state_dict()
    few = {key: value for key, value in weights.items() if not key.endswith("num_batches_tracked")}
    save_weights(tmp_path / "w.safetensors", few, {})
    assert problems([recipe(pretrained=True, weights=str(tmp_path / "w.safetensors"))]) == []


def test_a_head_on_logits_needs_the_classifier_of_the_weights(tmp_path):
    donor = timm.create_model("test_resnet")
    save_weights(tmp_path / "whole.safetensors", donor.state_dict(), {})
    kept = {"pretrained": True, "head": "relu_logits"}
    net = network.build(config(**kept, weights=str(tmp_path / "whole.safetensors")), [3])
    assert torch.equal(net.backbone.fc.weight, donor.fc.weight)
    donor.reset_classifier(0)
    save_weights(tmp_path / "bare.safetensors", donor.state_dict(), {})
    assert "fc.weight is missing" in only(**kept, weights=str(tmp_path / "bare.safetensors")).what


def test_normalization_is_the_backbones_the_usual_one_or_the_recipes():
    vit = network.build(config(backbone="vit_tiny_patch16_224"), [3])
    assert network.normalization(config(), vit) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert network.normalization(config(normalize="imagenet"), vit) == network.IMAGENET
    own = config(normalize={"mean": 0.3, "std": [0.1, 0.2, 0.3]})
    assert network.normalization(own, vit) == ((0.3, 0.3, 0.3), (0.1, 0.2, 0.3))


def test_convolutional_networks_are_channels_last_and_transformers_are_not():
    assert network.channels_last(config(), timm.create_model("test_resnet"))
    assert not network.channels_last(config(), timm.create_model("test_vit"))
    assert not network.channels_last(config(channels_last=False), timm.create_model("test_resnet"))


def test_an_unknown_backbone_is_named_with_its_neighbours():
    problem = only(backbone="resnet5o")
    assert (problem.what, problem.exit_code) == ("timm has no model 'resnet5o'", 2)
    assert "'resnet50'" in problem.help


def test_an_unknown_set_of_weights_is_named_with_the_known_ones():
    problem = only(backbone="resnet50.a9_in1k")
    assert problem.what == "'resnet50' has no weights named 'a9_in1k'"
    assert "a1_in1k" in problem.help


def test_a_size_that_a_network_cannot_take_is_named_with_sizes_that_fit():
    problem = only(backbone="test_convnext", image_size=16)
    assert "cannot take images of 16 pixels" in problem.what
    assert problem.help.startswith("sizes that fit: 32")


def test_sizes_that_fit_are_those_nearest_to_the_wanted_one():
    problem = only(backbone="hiera_tiny_224", image_size=250)
    assert "cannot take images of 250 pixels" in problem.what
    assert problem.help == "sizes that fit: 224, 256, 288"


@pytest.mark.parametrize("head", ["relu_logits", "logits_mlp"])
def test_a_head_on_logits_that_a_backbone_does_not_have_is_named_with_heads_that_fit(head):
    problem = only(backbone="vit_small_patch14_dinov2", image_size=56, head=head)
    assert (problem.where, problem.exit_code) == ("train.head", 2)
    assert f"no class scores of its own, which the head {head} needs" in problem.what
    assert problem.help == "heads that fit: linear, category_mlp, shared_mlp, query2label"


def test_attention_heads_that_do_not_divide_the_width_are_named_with_those_that_do():
    problem = only(head={"name": "query2label", "width": 100, "heads": 3})
    assert (problem.where, problem.help) == ("train.head.heads", "numbers that fit: 1, 2, 4, 5, 10")


@pytest.mark.parametrize(("backbone", "size"), [("deit_tiny_distilled_patch16_224", 64), ("pit_ti_224", 224)])
def test_a_backbone_without_a_map_is_named(backbone, size):
    problem = only(backbone=backbone, image_size=size, head="query2label")
    assert problem.where == "train.head"
    assert "gives no map that the head query2label could use" in problem.what


@pytest.mark.parametrize(("backbone", "size"), [("xcit_nano_12_p16_224", TALL), ("volo_d1_224", 224)])
def test_tokens_are_a_map_whether_or_not_the_backbone_gives_their_number(backbone, size):
    assert problems([recipe(backbone=backbone, image_size=size, head="query2label")]) == []


def test_a_backbone_whose_tokens_are_no_grid_is_named_with_their_number(monkeypatch):
    def head(config, backbone, sizes):
        """The head that counts the class token as a place."""
        return heads.build(config.head, network.features(config, backbone), sizes, aspect=1.5)

    monkeypatch.setattr(network, "head", head)
    problem = only(backbone="test_vit", image_size=TALL, head="query2label")
    assert (problem.where, problem.exit_code) == ("train.head", 2)
    assert problem.what == (
        "test_vit gives no map that the head query2label could use: 25 tokens are no grid in the proportions of the"
        " input, 1.5 : 1"
    )


def test_drop_path_reaches_the_backbone_unless_its_own_argument_says_otherwise():
    def last(**more):
        return network.create(config(backbone="test_vit", **more)).blocks[-1].drop_path1.drop_prob

    assert last(drop_path=0.25) == 0.25
    assert last(drop_path=0.25, backbone_args={"drop_path_rate": 0.5}) == 0.5


def test_a_backbone_without_drop_path_is_named():
    problem = only(backbone="densenet121", drop_path=0.1)
    assert (problem.where, problem.what) == ("train.drop_path", "densenet121 has no drop path")
    assert problem.help == "leave drop_path out"


@pytest.mark.parametrize(
    "backbone", ["convnext_atto", "swin_tiny_patch4_window7_224", "vit_tiny_patch16_224", "van_b0"]
)
def test_a_family_has_drop_path_only_where_its_backbones_take_it(backbone):
    assert family(backbone).drop_path
    with torch.device("meta"):
        network.create(TrainConfig(backbone=backbone))


def test_the_majority_needs_no_weights():
    for weights in (None, "a/folder/of/weights"):
        how = {"backbone": "majority", "pretrained": True, "weights": weights}
        assert problems([recipe(**how)]) == []
        assert network.build(config(**how), [3]).head.prior.shape == (3,)


def test_a_van_says_that_its_weights_must_come_from_a_file():
    problem = only(backbone="van_b0", pretrained=True)
    assert problem.what == "timm has no published weights for van_b0"
    assert "set train.weights to a local weights file" in problem.help


def test_an_argument_that_a_network_does_not_know_is_named():
    assert "unexpected keyword argument 'padd'" in only(backbone_args={"padd": "x"}).what


def test_absent_local_weights_are_an_environments_fault(tmp_path):
    problem = only(pretrained=True, weights=str(tmp_path / "none.safetensors"))
    assert (problem.where, problem.exit_code) == ("train.weights", 3)
    assert "--set train.weights=PATH" in problem.help


@pytest.mark.slow
@pytest.mark.process
def test_a_hub_that_does_not_answer_is_said_with_the_ways_out(tmp_path):
    both = [recipe(pretrained=True, backbone=name, image_size=64) for name in ("test_resnet", "test_vit")]
    request = json.dumps({"recipes": [one.model_dump(mode="json") for one in both]})
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": ""}
    ended = subprocess.run(
        [sys.executable, "-m", "trainers.models.preflight"], input=request, env=closed, capture_output=True, text=True
    )
    (problem,) = json.loads(ended.stdout)
    assert problem["exit_code"] == 3
    assert "the weights of test_resnet, test_vit are not on this machine" in problem["what"]
    assert problem["what"].endswith("(no connection)")
    for way_out in ("train.weights=PATH", "HF_HOME", "train.pretrained=false"):
        assert way_out in problem["help"]


def test_good_recipes_have_no_problem():
    assert problems([recipe(), recipe(backbone="test_vit", image_size=64)]) == []


@pytest.mark.skipif(not (SHARED / "weights").exists(), reason="no real weights beside the project")
def test_real_published_weights_fit_their_backbone():
    path = SHARED / "weights" / "mobilenetv2_100_same.safetensors"
    real = {"backbone": "mobilenetv2_100", "backbone_args": {"pad_type": "same"}, "weights": str(path)}
    assert problems([recipe(pretrained=True, image_size=64, **real)]) == []


def test_a_backbone_of_one_size_is_not_grown_into():
    found = only(backbone="deit_tiny_patch16_224", image_size=224, progressive_resizing={"start": 0.5})
    assert (found.where, found.exit_code) == ("train.progressive_resizing", 2)
    assert "112 pixels of the first epochs" in found.what
    assert problems([recipe(image_size=64, progressive_resizing={"start": 0.5})]) == []


def test_weights_that_would_not_be_read_are_a_slip():
    found = only(weights="weights.safetensors")
    assert (found.where, found.exit_code) == ("train.weights", 2)
    assert found.what == "pretrained is false, so the weights would not be read"


def test_a_recipe_that_compiles_needs_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    problem = only(compile=True)
    assert (problem.where, problem.exit_code) == ("train.compile", 3)
    assert "no-such-compiler" in problem.what


@pytest.mark.process
@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpus_that_torch_cannot_use_are_named_before_a_trial_exists(tmp_path):
    with pytest.raises(DataError) as raised:
        preflight([recipe()], [Category("colour", ("red", "blue"))], cache=tmp_path, gpus=["GPU-1", "GPU-2"])
    (fault,) = raised.value.faults
    assert (fault.where, raised.value.exit_code) == ("--devices", 3)
    assert fault.what.startswith("the driver lists 2 GPUs, but torch")
    assert fault.what.endswith("can use 0")


# ------------------------------------------------------------------------------------ batches of one image
ALONE = {
    "a map of one pixel": ({"image_size": 32}, True),
    "a map of four pixels": ({"image_size": 64}, False),
    "small images first": ({"image_size": 64, "progressive_resizing": {"start": 0.5}}, True),
    "layer norm": ({"backbone": "test_vit", "image_size": 64}, False),
    "a head's batch norm": ({"backbone": "test_vit", "image_size": 64, "head": "category_mlp"}, True),
    "a frozen backbone": ({"freeze": {"epochs": 3}, "epochs": 3}, False),
    "a backbone that thaws": ({"freeze": {"epochs": 2}, "epochs": 3}, True),
}


@pytest.mark.parametrize("kind", ALONE)
def test_batches_of_one_image_are_refused_where_a_batch_norm_cannot_learn_from_them(kind):
    more, refused = ALONE[kind]
    found = problems([recipe(batch_size=1, **more)])
    assert [(one.where, one.exit_code) for one in found] == [("train.batch_size", 2)] * refused
    assert all(one.help == "write batch_size: 2 or more, such as 32" for one in found)
    assert problems([recipe(batch_size=2, **more)]) == []


def test_a_single_image_to_train_on_is_a_batch_of_one():
    (found,) = problems([recipe(batch_size=8)], images=1)
    assert (found.where, found.exit_code) == ("data", 3)
    assert "one image to train on" in found.what
    assert problems([recipe(batch_size=8)], images=2) == []


def test_pieces_of_a_batch_have_two_images_or_more_however_little_room_there_is():
    """So a batch norm works in them: halving ends at LEAST."""
    for count in range(2, 130):
        batch = Batch(torch.zeros(count, 1), torch.zeros(count, 1))
        for most in range(MIN_MICRO_BATCH, count + 1):
            assert min(len(piece.images) for piece in batch.pieces(most)) >= 2


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("ViT-B16", "vit_base_patch16_224"),
        ("ViT-L/14", "vit_large_patch14_224"),
        ("Swin-T", "swin_tiny_patch4_window7_224"),
        ("ConvNeXt-L", "convnext_large"),
        ("EfficientNet-B0", "efficientnet_b0"),
        ("ResNet-50", "resnet50"),
        ("DenseNet-121", "densenet121"),
    ],
)
def test_a_backbone_as_papers_write_it_is_named_as_timm_does(written, meant):
    assert only(backbone=written).help.startswith(f"did you mean '{meant}'")


def test_a_backbone_like_no_other_is_answered_with_the_list():
    assert "timm.list_models()" in only(backbone="zzzzzz").help

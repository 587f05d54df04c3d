"""Weights files of other people's making: read without running code, or named with the way out."""

import argparse
import gzip
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from trainers.config import Recipe, TrainConfig
from trainers.models import foreign_weights, network
from trainers.models.preflight import notes, problems
from trainers.support.errors import EnvironmentFault

WHOLE = timm.create_model("test_resnet", num_classes=10).state_dict()
BARE = {key for key in WHOLE if not key.startswith("fc.")}


def recipe(path, **more):
    train = {"backbone": "test_resnet", "weights": str(path), "image_size": 32} | more
    return Recipe(data={"root": "x"}, train=TrainConfig(**train))


def prefixed(prefix, tensors=WHOLE):
    return {prefix + key: tensor for key, tensor in tensors.items()}


def changed(by):
    return {key: tensor + by if tensor.is_floating_point() else tensor for key, tensor in WHOLE.items()}


def taken(path):
    """The first tensor that the backbone gets of the file."""
    return network.build(recipe(path).train, [3]).backbone.conv1[0].weight


def fault(path):
    (problem,) = problems([recipe(path)])
    assert (problem.where, problem.exit_code) == (str(path), 3)
    return problem


# ------------------------------------------------------------------------------------------ prefixes
@pytest.mark.parametrize(
    "prefix",
    ["_orig_mod.", "module.", "model.", "net.", "backbone.", "module._orig_mod.", "_orig_mod.module.",
     "model._orig_mod.backbone.", "_fsdp_wrapped_module.model.", "some_name_of_theirs."],
)  # fmt: skip
@pytest.mark.parametrize("wrap", [dict, lambda tensors: {"state_dict": tensors, "epoch": 3}])
def test_a_prefix_is_taken_off_and_said(tmp_path, prefix, wrap):
    path = tmp_path / "w.pth"
    torch.save(wrap(prefixed(prefix)), path)
    assert torch.equal(taken(path), WHOLE["conv1.0.weight"])
    (said, *_) = notes([recipe(path)])
    assert said.startswith(str(path))
    assert prefix.split(".")[0] in " ".join(notes([recipe(path)]))


def test_a_part_that_was_compiled_alone_is_read(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file({key.replace("layer1.", "layer1._orig_mod."): tensor for key, tensor in WHOLE.items()}, path)
    assert torch.equal(taken(path), WHOLE["conv1.0.weight"])


def test_what_lies_beside_a_prefix_is_left_out_and_counted(tmp_path):
    path = tmp_path / "w.safetensors"
    save_file(prefixed("model.") | {"criterion.weight": torch.ones(3), "metric.total": torch.ones(1)}, path)
    assert notes([recipe(path)]) == [
        f"{path}: uses the weights under 'model.'; leaves out 2 keys without this prefix"
    ]


def test_without_a_prefix_a_key_that_fits_nowhere_is_still_refused(tmp_path):
    save_file(WHOLE | {"criterion.weight": torch.ones(3)}, tmp_path / "w.safetensors")
    assert "criterion.weight is not in the network" in fault(tmp_path / "w.safetensors").what


def test_weights_as_they_are_need_no_word(tmp_path):
    save_file(WHOLE, tmp_path / "w.safetensors")
    assert notes([recipe(tmp_path / "w.safetensors")]) == []


# ------------------------------------------------------------------------------------------- averages
@pytest.mark.parametrize("key", foreign_weights.AVERAGED)
@pytest.mark.parametrize("beside", ["state_dict", "model"])
def test_averaged_weights_are_taken_before_the_others_and_that_is_said(tmp_path, key, beside):
    path = tmp_path / "w.pth"
    torch.save({beside: WHOLE, key: prefixed("module.", changed(1)), "epoch": 3}, path)
    assert torch.equal(taken(path), WHOLE["conv1.0.weight"] + 1)
    assert (
        notes([recipe(path)])[0]
        == f"{path}: uses the averaged weights under {key!r} instead of those under {beside!r}"
    )


@pytest.mark.parametrize("prefix", ["model_ema.", "ema_model.module.", "ema.", "teacher.backbone."])
def test_so_are_averages_that_only_a_prefix_tells(tmp_path, prefix):
    path = tmp_path / "w.pth"
    torch.save({"state_dict": prefixed("model.") | prefixed(prefix, changed(1))}, path)
    assert torch.equal(taken(path), WHOLE["conv1.0.weight"] + 1)
    assert f"uses the weights under {prefix!r} instead of those under 'model.'" in notes([recipe(path)])[0]


@pytest.mark.parametrize("nothing", [None, {}, {"decay": 0.99, "shadow": [1, 2]}])
def test_an_average_without_weights_is_passed_by(tmp_path, nothing):
    torch.save({"ema": nothing, "model": WHOLE}, tmp_path / "w.pth")
    assert torch.equal(taken(tmp_path / "w.pth"), WHOLE["conv1.0.weight"])


def test_a_checkpoint_that_holds_itself_has_an_end(tmp_path):
    knot = {"epoch": 3}
    knot["state_dict"] = knot
    torch.save(knot, tmp_path / "w.pth")
    assert "does not hold named tensors" in fault(tmp_path / "w.pth").what


# ------------------------------------------------------------------------------------------ no weights
def numpys(path):
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


def zipped(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("resnet.pth", b"x")


FILES = {
    "pointer": (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4\n"),
                "Git LFS pointer", "git lfs pull"),
    "page": (lambda p: p.write_text("\n<!DOCTYPE html><html>Sign in"), "web page", "download the file again"),
    "json": (lambda p: p.write_text('{"weight_map": {"a": "b"}}'), "a text file, not", "download the file again"),
    "empty": (lambda p: p.write_bytes(b""), "the file is empty", "download the file again"),
    "zip": (zipped, "zip archive that holds resnet.pth", "unpack it"),
    "numpy": (numpys, "zip archive that holds a.npy", "unpack it"),
    "gzip": (lambda p: p.write_bytes(gzip.compress(b"x" * 99)), "gzip archive", "unpack it"),
    "noise": (lambda p: p.write_bytes(bytes(range(128, 256)) * 9), "damaged, or was not written by torch", "again"),
    "more noise": (lambda p: p.write_bytes(bytes(range(256)) * 9), "neither safetensors nor", "safetensors"),
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
@pytest.mark.parametrize("kind", FILES)
def test_a_file_that_holds_no_weights_is_named_for_what_it_is(tmp_path, kind, suffix):
    make, what, advice = FILES[kind]
    make(tmp_path / f"w.{suffix}")
    found = fault(tmp_path / f"w.{suffix}")
    assert what in found.what
    assert advice in found.help


@pytest.mark.parametrize("save", [save_file, torch.save])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_said_to_be(tmp_path, save, share):
    path = tmp_path / "w.any"
    save(WHOLE, path)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    assert "damaged or truncated" in fault(path).what


def test_a_header_that_looks_like_a_pickle_is_none(tmp_path):
    """The first byte of safetensors is the lowest of a length."""
    firsts = set()
    for extra in range(0, 256, 8):
        save_file(WHOLE, tmp_path / "w.safetensors", metadata={"note": "x" * extra})
        firsts.add((tmp_path / "w.safetensors").read_bytes()[:1])
        assert foreign_weights.read(tmp_path / "w.safetensors").tensors.keys() == WHOLE.keys()
    assert b"\x80" in firsts


def test_a_file_is_read_for_what_it_is_whatever_its_name(tmp_path):
    save_file(WHOLE, tmp_path / "w.pth")
    torch.save(WHOLE, tmp_path / "w.safetensors", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert torch.equal(taken(path), WHOLE["conv1.0.weight"])


# --------------------------------------------------------------------------------------------- objects
class Own(nn.Module):
    """Somebody's own class."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)


OBJECTS = {
    "a namespace": ({"state_dict": WHOLE, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
    "a path": ({"model": WHOLE, "file": Path("x")}, "pathlib."),
    "a numpy scalar": ({"model": WHOLE, "best": np.float64(0.9)}, "numpy."),
    "a module": (nn.Sequential(nn.Linear(2, 2)), "torch.nn.modules.container.Sequential"),
    "a module inside": ({"ema": nn.Linear(2, 2), "epoch": 3}, "torch.nn.modules.linear.Linear"),
    "a module that mentions a key": (timm.create_model("test_resnet"), "timm.models.resnet"),
    "arrays of numpy": ({"state_dict": {k: v.numpy() for k, v in WHOLE.items()}}, "numpy."),
    "an average's module": ({"model": Own()}, "test_foreign_weights.Own"),
}


@pytest.mark.parametrize("kind", OBJECTS)
def test_objects_in_a_checkpoint_are_named(tmp_path, kind):
    content, name = OBJECTS[kind]
    torch.save(content, tmp_path / "w.pth")
    found = fault(tmp_path / "w.pth")
    assert "besides tensors it holds objects" in found.what
    assert name in found.what


@pytest.mark.process
def test_the_line_that_is_offered_works_for_every_kind_of_object(tmp_path):
    lines = []
    for kind, (content, _) in OBJECTS.items():
        torch.save(content, tmp_path / f"{kind}.pth")
        lines.append(fault(tmp_path / f"{kind}.pth").help.split(' -c "')[1].removesuffix('"'))
    each = "import sys; [exec(line, {}) for line in sys.argv[1:]]"  # in one process: each would load torch
    subprocess.run([sys.executable, "-c", each, *lines], check=True, cwd=Path(__file__).parents[3])
    assert all(load_file(tmp_path / f"{kind}.safetensors") for kind in OBJECTS)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_torchscript_program_is_not_run(tmp_path):
    path = tmp_path / "w.pt"
    torch.jit.save(torch.jit.trace(nn.Linear(2, 2), torch.ones(1, 2)), path)
    found = fault(path)
    assert "TorchScript" in found.what
    subprocess.run([sys.executable, "-c", found.help.split(' -c "')[1].removesuffix('"')], check=True)
    assert set(load_file(tmp_path / "w.safetensors")) == {"weight", "bias"}


# --------------------------------------------------------------------------------------------- values
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("key", ["conv1.0.weight", "bn1.running_var"])
def test_a_value_that_is_no_number_is_found_before_a_trial(tmp_path, value, key):
    spoilt = {name: tensor.clone() for name, tensor in WHOLE.items()}
    key = next(name for name in spoilt if name.endswith(key.split(".", 1)[1]))
    spoilt[key].view(-1)[-1] = value
    save_file(spoilt, tmp_path / "w.safetensors")
    found = fault(tmp_path / "w.safetensors")
    assert found.what == f"the weights contain NaN or infinity, in {key}"
    with pytest.raises(EnvironmentFault, match="NaN or infinity"):
        network.build(recipe(tmp_path / "w.safetensors").train, [3])


def test_quantized_weights_are_refused(tmp_path):
    torch.save(WHOLE | {"conv1.0.weight": (WHOLE["conv1.0.weight"] * 99).to(torch.int8)}, tmp_path / "w.pth")
    assert fault(tmp_path / "w.pth").what == "the weights are quantized: conv1.0.weight is int8"


def test_a_number_that_the_networks_format_cannot_hold_is_found(tmp_path):
    torch.save(WHOLE | {"conv1.0.weight": WHOLE["conv1.0.weight"].double() + 1e300}, tmp_path / "w.pth")
    assert "NaN or infinity, in conv1.0.weight" in fault(tmp_path / "w.pth").what


def test_a_classifier_that_is_left_out_may_hold_anything(tmp_path):
    save_file(WHOLE | {"fc.weight": torch.full_like(WHOLE["fc.weight"], float("nan"))}, tmp_path / "w.safetensors")
    assert problems([recipe(tmp_path / "w.safetensors")]) == []


def test_weights_of_another_architecture_are_told_by_their_first_keys_and_counts(tmp_path):
    other = timm.create_model("test_vit", num_classes=10).state_dict()
    save_file(other, tmp_path / "w.safetensors")
    what = fault(tmp_path / "w.safetensors").what
    assert "conv1.0.weight is missing and " in what
    assert (
        f"the file starts with {', '.join(list(load_file(tmp_path / 'w.safetensors'))[:3])} ({len(other)} keys)"
        in what
    )
    assert f"the network with conv1.0.weight, conv1.1.weight, conv1.1.bias ({len(BARE)} keys)" in what


def test_other_shapes_are_told_with_both(tmp_path):
    save_file(WHOLE | {"conv1.0.weight": torch.ones(4, 1, 3, 3)}, tmp_path / "w.safetensors")
    assert "conv1.0.weight has shape (4, 1, 3, 3), not " in fault(tmp_path / "w.safetensors").what


@pytest.mark.slow
@pytest.mark.process
def test_what_was_chosen_is_among_the_answers_of_the_check(tmp_path):
    torch.save(prefixed("model."), tmp_path / "w.pth")
    request = {"recipes": [recipe(tmp_path / "w.pth").model_dump(mode="json")]}
    ended = subprocess.run(
        [sys.executable, "-m", "trainers.models.preflight"], input=json.dumps(request), capture_output=True, text=True
    )
    assert json.loads(ended.stdout) == [{"note": f"{tmp_path / 'w.pth'}: uses the weights under 'model.'"}]

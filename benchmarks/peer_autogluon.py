"""A peer for equal_hours.py: AutoGluon's MultiModalPredictor with its time limit, as in its documentation.

    AUTOGLUON/bin/python benchmarks/peer_autogluon.py --root DATA --weights FILE --hours 0.5 --out FILE.csv

It predicts one column per predictor, so the hours are shared equally by the categories. Each predictor gets train and
val together, and holds out images of its own. Its network is timm's, with the given weights, at --size pixels.
"""

import json
import time
from pathlib import Path
from typing import Any

import pandas as pd
import peers
import timm
import torch
from autogluon.multimodal import MultiModalPredictor
from safetensors.torch import load_file
from timm.models import register_model

NAME = "given_network"  # under which timm makes the network with the arguments that were given


def folder(given: peers.Given, place: Path) -> Path:
    """Write the weights as a folder that AutoGluon reads: a network without a head, and its configuration."""

    def given_network(**more: Any) -> torch.nn.Module:
        made: torch.nn.Module = timm.create_model(given.backbone, **{**given.arguments, **more})
        return made

    given_network.__name__, given_network.__module__ = NAME, timm.models.__name__
    register_model(given_network)
    network = timm.create_model(given.backbone, num_classes=0, **given.arguments)
    weights = {name: value for name, value in load_file(given.weights).items() if name in network.state_dict()}
    network.load_state_dict(weights)
    place.mkdir(parents=True, exist_ok=True)
    torch.save(weights, place / "pytorch_model.bin")
    scale = {"mean": [0.5] * 3, "std": [0.5] * 3, "input_size": [3, given.size, given.size]}
    described = {"architecture": NAME, "num_features": network.num_features, "pretrained_cfg": scale}
    (place / "config.json").write_text(json.dumps(described))
    return place


def main() -> None:
    began = time.monotonic()
    given = peers.arguments(__doc__ or "")
    table = peers.read(given.root)
    place = given.out.parent
    network = folder(given, place / "network")
    lines = pd.DataFrame([{**line, "image": str(given.root / line["path"])} for line in table.lines])
    train, test = lines[lines["split"] != "test"], lines[lines["split"] == "test"]
    answers = []
    for number, category in enumerate(table.categories):
        left = 3600 * given.hours - (time.monotonic() - began)
        predictor = MultiModalPredictor(label=category, path=str(place / f"predictor {category}"))
        predictor.fit(
            train[["image", category]],
            time_limit=left / (len(table.categories) - number),
            seed=given.seed,
            hyperparameters={
                "model.names": ["timm_image"],
                "model.timm_image.checkpoint_name": str(network),
                "model.timm_image.image_size": given.size,
                "env.num_workers": given.workers,
            },
        )
        known = {name: k for k, name in enumerate(table.classes[number])}
        answers.append([known[str(name)] for name in predictor.predict(test[["image"]], as_pandas=False)])
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    peers.write(given.out, table, table.split("test"), list(zip(*answers, strict=True)))


if __name__ == "__main__":
    main()

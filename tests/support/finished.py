"""A small study with a final, trained for real, for tests of what is done with models."""

import subprocess
from pathlib import Path

from tests.support.cli import command, environment
from tests.support.photos import draw_photos

SPACE = """\
study: question
data: {layout: table, root: photos}
budget: {trials: 2}
search: {sampler: random, pruner: none}
train:
  backbone: test_resnet
  pretrained: false
  image_size: {height: 48, width: 32}
  fit: pad
  tta: {flip: true}
  posthoc_logit_adjustment: {fit: true}
  optimizer: {name: adamw, lr: {loguniform: [1e-3, 1e-2]}}
  epochs: 1
"""


def really(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command with torch, and not the fake trainer."""
    env = environment(SWEEP_TRAINER="")
    return subprocess.run(command(*words), cwd=folder, env=env, capture_output=True, text=True, timeout=400)


def sweep_and_export(folder: Path, *words: str) -> Path:
    """Draw photos and make of them a study of two trials and a final; `words` go with both commands."""
    (folder / "photos").mkdir()
    draw_photos(folder / "photos", train=24, val=120, test=19)
    (folder / "space.yaml").write_text(SPACE)
    for asked in (("run", "space.yaml", "--inline"), ("best", "--export", "submission")):
        ended = really(folder, *asked, *words)
        assert ended.returncode == 0, ended.stderr
    return folder


def final(folder: Path) -> Path:
    (found,) = (folder / "mlruns/studies/question/finals").iterdir()
    return found

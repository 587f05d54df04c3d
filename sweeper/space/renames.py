"""What earlier versions called otherwise, and what is gone: by the path of a key, or of a key and its value."""

from trainers.support.errors import UserError

RENAMED = {
    "train.optimizer.backbone_lr": "backbone_lr_scale",
    "train.augment.mixup_of": "mixup_classes",
    "train.augment.margin": "random_shift",
    "train.augment.brightness": "color_jitter.brightness",
    "train.augment.contrast": "color_jitter.contrast",
    "train.augment.saturation": "color_jitter.saturation",
    "train.augment.hue": "color_jitter.hue",
    "train.augment.rotate": "rotation",
    "train.augment.erase": "random_erasing",
    "train.augment.flip": "horizontal_flip",
    "train.schedule.floor": "min_lr_ratio",
    "train.schedule.rise": "pct_start",
    "train.optimizer.decay_norms": "decay_norm_and_bias",
    "train.balance": "balanced_sampling",
    "train.loss.over_categories": "category_reduction",
    "train.posterior": "posthoc_logit_adjustment",
    "train.average": "weight_averaging",
    "train.grow": "progressive_resizing",
    "train.thaw": "freeze",
    "keep": "keep_checkpoints",
    "goal": "metric",
    "search.pruner: patient": "early_stopping",
    "search.pruner: promotion": "asha",
    "search.pruner: successive_halving": "{name: asha, type: stopping}",
}
"""By an old path the new word: the end of a path, or what is written after the colon."""

REMOVED = {
    "train.augment.crop": "write random_shift: 0.125 instead of random, random_resized_crop: {} instead of resized",
    "train.augment.min_area": "write random_resized_crop: {scale: [0.35, 1.0]}, of which it is the first number",
    "train.augment.policy": "write trivial_augment: true instead of trivial, rand_augment: {} instead of rand",
    "train.augment.changes": "write rand_augment: {num_ops: 2}, of which it is the number",
    "train.augment.magnitude": "write rand_augment: {magnitude: 9}, which is of 30",
    "search.probe": "leave it out; search.pruner stops hopeless trials early",
    "search.sampler: cmaes": "use tpe, or gp where all open values are numbers",
    "search.sampler: nsga2": "use tpe",
    "search.pruner: hyperband": "use asha, with a larger min_epochs where trials begin slowly",
    "search.pruner: percentile": "use median, or asha with a reduction_factor",
}
"""By an old path what to write in its place."""


def refuse(path: str, where: str) -> None:
    """Raise UserError where `path`, such as `search.probe` or `search.pruner: patient`, was renamed or removed."""
    if path in RENAMED:
        raise UserError(f"{path} was renamed to '{RENAMED[path]}'", where=where, help="write the new name")
    if path in REMOVED:
        raise UserError(f"{path} was removed", where=where, help=REMOVED[path])

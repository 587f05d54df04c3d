"""An albumentations pipeline on each training image. Needs the package: pip install 'albumentations>=2.0'."""

import albumentations

pipeline = albumentations.Compose(
    [
        albumentations.CLAHE(p=0.3),
        albumentations.GaussianBlur(blur_limit=(3, 5), p=0.2),
        albumentations.CoarseDropout(num_holes_range=(1, 4), p=0.3),
    ]
)

augmentations = {"pipeline": pipeline}

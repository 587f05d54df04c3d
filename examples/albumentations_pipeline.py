"""An albumentations pipeline on each training image. Needs the package: pip install 'sweep[augment]'."""

import albumentations

pipeline = albumentations.Compose(
    [
        albumentations.CLAHE(p=0.3),
        albumentations.GaussianBlur(blur_limit=(3, 5), p=0.2),
        albumentations.CoarseDropout(num_holes_range=(1, 4), p=0.3),
    ]
)

augmentations = {"pipeline": pipeline}

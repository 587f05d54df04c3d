"""The acceptance test for one GPU: run, check and time every CUDA path once, in at most eight minutes.

    python -m benchmarks.gpu_check [--device cpu] [--out FOLDER] [--budget SECONDS] [--only env,waits]

Run it from the project's root, as `make gpu-check` does. It needs torch, timm, numpy, pandas, pillow, safetensors and
pydantic, but no network and no MLflow. Sections that need other, missing packages are skipped with the reason. With
`--device cpu`, small networks take every path that does not need CUDA itself.
"""

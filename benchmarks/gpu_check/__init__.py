"""The acceptance on one GPU: every CUDA path run once, checked and timed, in at most eight minutes.

    python -m benchmarks.gpu_check [--device cpu] [--out FOLDER] [--budget SECONDS] [--only env,waits]

Run it from the project's root, as `make gpu-check` does. It needs torch, timm, numpy, pandas, pillow, safetensors and
pydantic; no network, no MLflow. Sections whose further packages are missing are skipped, with the reason. With
`--device cpu` small networks take every path that does not need CUDA itself.
"""

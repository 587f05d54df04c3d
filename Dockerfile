# sweep for the CPU or for CUDA: docker build --build-arg DEVICE=cpu -t sweep:cpu .
# Run it with --init in the folder of a project, mounted at /work; docs/how-to/docker.md has the lines.
FROM python:3.11-slim

ARG DEVICE=cuda

WORKDIR /opt/sweep
COPY pyproject.toml requirements.lock ./
# The locked versions, without their hashes: the CPU's torch is another file of the same version.
RUN case "$DEVICE" in \
      cpu) backend=--torch-backend=cpu ;; \
      cuda) backend= ;; \
      *) echo "DEVICE is cpu or cuda, not $DEVICE" >&2; exit 2 ;; \
    esac \
 && pip install --no-cache-dir --quiet uv \
 && grep -E '^[a-z0-9]' requirements.lock | sed 's/ *\\$//' > versions.txt \
 && uv pip install --system --no-cache $backend --constraint versions.txt --requirement pyproject.toml --extra export 'setuptools>=77'

COPY README.md LICENSE ./
COPY sweeper sweeper
COPY trainers trainers
RUN uv pip install --system --no-cache --no-deps --no-build-isolation . && sweep --version

# Any user may run it, also one without a name: caches lie in the project.
ENV USER=sweep HOME=/work HF_HOME=/work/.cache/huggingface MPLCONFIGDIR=/tmp/matplotlib
WORKDIR /work
STOPSIGNAL SIGTERM
ENTRYPOINT ["sweep"]
CMD ["--help"]

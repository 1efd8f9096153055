# The image in which a ZenML stack's pods run this project: its lock, its training packages, its source.
#
#   make image IMAGE=registry.example.com/finetuning:1
#
# Model and data are not in it: use Hub ids, URLs, or paths of a volume that the pods mount.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

# gcc: Triton compiles its launchers.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc git libc6-dev make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /app
COPY . .

# BUILD is cuda or cpu. Poetry itself is not needed once the packages are there.
ARG BUILD=cuda
RUN TRAINING_BUILD=${BUILD} make .venv/.installed && rm -rf .poetry /root/.cache /root/.config/zenml

ENV PATH=/app/.venv/bin:$PATH \
    PYTHONPATH=/app \
    ZENML_ANALYTICS_OPT_IN=false

# Dagster's web server, daemon and code location, MLflow's pages and the exporter: one image, a command each (compose.yaml).
FROM python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba AS build
WORKDIR /build
RUN python -m venv /opt/fraud
COPY requirements/bootstrap.txt requirements/pipeline.txt requirements/
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/bootstrap.txt \
    && uv pip sync --python /opt/fraud/bin/python --no-cache --no-build --require-hashes --compile-bytecode requirements/pipeline.txt
COPY pyproject.toml README.md LICENSE ./
COPY requirements/dev.txt requirements/
COPY fraud_assets fraud_assets
COPY fraud_cli fraud_cli
COPY fraud_core fraud_core
# dev.txt only pins what builds the wheel; nothing else of it is installed.
RUN uv build --no-cache --wheel --build-constraints requirements/dev.txt --require-hashes --out-dir dist \
    && uv pip install --python /opt/fraud/bin/python --no-cache --no-deps --compile-bytecode dist/*.whl

FROM python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba
# git holds the histories of the data's versions. Debian keeps no older version of a package, so none can be named.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin fraud \
    && install -d -o fraud -g fraud /var/lib/fraud /var/lib/dagster/storage
COPY --from=build /opt/fraud /opt/fraud
# Whoever starts Dagster's own web server by its name, as its Helm chart does, gets ours with the guard around it.
RUN printf '#!/bin/sh\nexec fraud webserver -- "$@"\n' > /opt/fraud/bin/dagster-webserver
COPY docker/dagster.yaml docker/workspace.yaml /var/lib/dagster/
WORKDIR /app
COPY sources sources
# What libraries write by themselves goes to /tmp, which need not outlive the container.
ENV PATH=/opt/fraud/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    FRAUD_HOME=/var/lib/fraud DAGSTER_HOME=/var/lib/dagster \
    DAGSTER_DISABLE_TELEMETRY=yes MLFLOW_DISABLE_TELEMETRY=true DVC_NO_ANALYTICS=1 HF_HUB_OFFLINE=1 HF_HUB_DISABLE_TELEMETRY=1 DO_NOT_TRACK=1 \
    NO_PROXY=127.0.0.1,localhost,::1 no_proxy=127.0.0.1,localhost,::1
USER 10001:10001
EXPOSE 3000 4000 5000 9109
HEALTHCHECK --interval=30s --timeout=25s --start-period=120s --retries=4 \
    CMD ["dagster", "api", "grpc-health-check", "-p", "4000"]
CMD ["dagster", "code-server", "start", "--host", "0.0.0.0", "--port", "4000", "--module-name", "fraud_assets.definitions"]

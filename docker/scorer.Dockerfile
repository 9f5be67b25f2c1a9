# The scoring API, without Dagster, MLflow, Gradio or alibi-detect. On 0.0.0.0 it asks for API keys.
FROM python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba AS build
WORKDIR /build
RUN python -m venv /opt/fraud
COPY requirements/bootstrap.txt requirements/scorer.txt requirements/
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/bootstrap.txt \
    && uv pip sync --python /opt/fraud/bin/python --no-cache --no-build --require-hashes --compile-bytecode requirements/scorer.txt
COPY pyproject.toml README.md LICENSE ./
COPY requirements/dev.txt requirements/
COPY fraud_api fraud_api
COPY fraud_cli fraud_cli
COPY fraud_core fraud_core
# dev.txt only pins what builds the wheel; nothing else of it is installed.
RUN uv build --no-cache --wheel --build-constraints requirements/dev.txt --require-hashes --out-dir dist \
    && uv pip install --python /opt/fraud/bin/python --no-cache --no-deps --compile-bytecode dist/*.whl

FROM python:3.11.15-slim-bookworm@sha256:b18992999dbe963a45a8a4da40ac2b1975be1a776d939d098c647482bcad5cba
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin fraud \
    && install -d -o fraud -g fraud /var/lib/fraud
COPY --from=build /opt/fraud /opt/fraud
WORKDIR /app
COPY sources sources
ENV PATH=/opt/fraud/bin:$PATH HOME=/tmp PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 FRAUD_HOME=/var/lib/fraud
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=4 \
    CMD ["python", "-c", "import urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["fraud", "serve", "--host", "0.0.0.0", "--port", "8000"]

# Prometheus with our rules. ENVIRONMENT, GRAFANA_URL and DOCS_URL are read when it starts; alerts bear them.
FROM prom/prometheus:v3.5.0@sha256:63805ebb8d2b3920190daf1cb14a60871b16fd38bed42b857a3182bc621f4996
COPY --chown=65534:65534 observability/prometheus/prometheus.yml /etc/prometheus/prometheus.yml
COPY observability/prometheus/rules /etc/prometheus/rules
COPY docker/targets /etc/prometheus/targets
USER 0
# hadolint ignore=SC2016
RUN sed -i -e 's|environment: development|environment: ${ENVIRONMENT}|' -e 's|grafana: http://127.0.0.1:3001|grafana: ${GRAFANA_URL}|' \
    -e 's|docs: ""|docs: "${DOCS_URL}"|' /etc/prometheus/prometheus.yml
ENV ENVIRONMENT=development GRAFANA_URL=http://127.0.0.1:3001 DOCS_URL=
USER 65534
EXPOSE 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=4 CMD ["wget", "-Y", "off", "-q", "-O", "/dev/null", "http://127.0.0.1:9090/-/ready"]
CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus", "--storage.tsdb.retention.time=30d"]

# Alertmanager with our routes and texts. Addresses that are secret lie in files under /etc/alertmanager/secrets.
FROM prom/alertmanager:v0.28.1@sha256:27c475db5fb156cab31d5c18a4251ac7ed567746a2483ff264516437a39b15ba
COPY observability/alertmanager /etc/alertmanager
USER 65534
EXPOSE 9093
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=4 CMD ["wget", "-Y", "off", "-q", "-O", "/dev/null", "http://127.0.0.1:9093/-/ready"]
CMD ["--config.file=/etc/alertmanager/alertmanager.yml", "--storage.path=/alertmanager", "--cluster.listen-address="]

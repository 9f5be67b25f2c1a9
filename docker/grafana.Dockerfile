# Grafana with our dashboards; it asks nobody on the internet for anything.
FROM grafana/grafana:11.6.16@sha256:d67af92050b8d93b393dc741864752a69c9da1ffa39c1bb9af49ad5d9e47d2c3
COPY observability/grafana/provisioning /etc/grafana/provisioning
COPY observability/grafana/dashboards /etc/grafana/dashboards
ENV PROMETHEUS_URL=http://prometheus:9090 GF_USERS_ALLOW_SIGN_UP=false GF_ANALYTICS_REPORTING_ENABLED=false \
    GF_ANALYTICS_CHECK_FOR_UPDATES=false GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES=false GF_SECURITY_DISABLE_GRAVATAR=true \
    GF_NEWS_NEWS_FEED_ENABLED=false GF_PLUGINS_PREINSTALL_DISABLED=true
USER 472
EXPOSE 3000
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=4 CMD ["wget", "-Y", "off", "-q", "-O", "/dev/null", "http://127.0.0.1:3000/api/health"]

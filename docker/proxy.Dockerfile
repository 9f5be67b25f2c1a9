# The one door to the internet: TLS, and of the API and the desk what the public may see.
FROM caddy:2.10.2-alpine@sha256:4c6e91c6ed0e2fa03efd5b44747b625fec79bc9cd06ac5235a779726618e530d
COPY docker/Caddyfile /etc/caddy/Caddyfile
RUN adduser -D -H -u 10001 proxy && install -d -o proxy -g proxy /var/lib/caddy
ENV XDG_DATA_HOME=/var/lib/caddy XDG_CONFIG_HOME=/var/lib/caddy
USER 10001:10001
EXPOSE 8080 8443
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=4 CMD ["wget", "-Y", "off", "-q", "-O", "/dev/null", "http://127.0.0.1:8081/"]

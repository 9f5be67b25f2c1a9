# The bundled S3 server, for one machine that has no bucket. Without AWS_ACCESS_KEY_ID it would let everybody in; compose.yaml sets it.
# Its own port for files asks for no key: nothing but this installation may be on its network.
FROM chrislusf/seaweedfs:4.48@sha256:4e61d15fd35994cb1e43e1e553dff106794841fd9a99ade2fc8c8bfce4d7872d
USER 0
RUN install -d -o 10001 -g 10001 /srv/s3
WORKDIR /srv/s3
USER 10001:10001
EXPOSE 8333
HEALTHCHECK --interval=5s --timeout=5s --start-period=30s --retries=6 CMD ["wget", "-Y", "off", "-q", "-O", "/dev/null", "http://127.0.0.1:8333/healthz"]
ENTRYPOINT ["weed"]
CMD ["-logtostderr=true", "mini", "-dir=/srv/s3", "-ip=127.0.0.1", "-ip.bind=0.0.0.0", "-master.telemetry=false", "-webdav=false", "-admin.ui=false", \
    "-s3.port=8333", "-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false", "-s3.cacheCapacityMB=64"]

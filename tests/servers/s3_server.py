"""A real S3 server (SeaweedFS) on ports of its own, for tests."""

import json
import os
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.servers.processes import free_port, running

WEED = shutil.which("weed", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
BUCKET = "fraud"
SECRET = "secret-key-of-the-tests"
EVERYTHING = ("Admin", "Read", "List", "Tagging", "Write")


def access_key(who: str) -> str:
    """The access key of an identity."""
    return f"access-key-of-{who}"


class S3Server:
    """Can be stopped and started again on the same ports. It has a bucket, and identities that may do everything, only read, or
    nothing unless a bucket policy says so.

    Attributes:
        url: the endpoint.
        environment: the standard AWS variables of who may do everything.
    """

    def __init__(self, folder: Path, *buckets: str) -> None:
        self.folder = folder
        self.port, *others = [free_port() for _ in range(10)]
        self.url = f"http://127.0.0.1:{self.port}"
        self._buckets = buckets or (BUCKET,)
        (folder / "data").mkdir()
        self._others = dict(zip(_PORTS, others, strict=True))
        self._identities = folder / "identities.json"
        self.environment = self.environment_of("admin")
        # The last two may do what a bucket policy lets them.
        identities = {"admin": EVERYTHING, "reader": ("Read", "List"), "pipeline": (), "scorer": ()}
        self._identities.write_text(
            json.dumps(
                {
                    "identities": [
                        {
                            "name": name,
                            "credentials": [{"accessKey": access_key(name), "secretKey": SECRET}],
                            "actions": list(actions),
                        }
                        for name, actions in identities.items()
                    ]
                }
            )
        )
        self._running = ExitStack()
        self.start()

    def environment_of(self, who: str, secret: str = SECRET) -> dict[str, str]:
        """The standard AWS variables of an identity."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": access_key(who),
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, who: str = "admin") -> Any:
        """A client of an identity, which tries everything once."""
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=access_key(who),
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=20, retries={"total_max_attempts": 1}),
        )

    def start(self) -> None:
        """Start, and wait until its buckets can be written to."""
        options = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "webdav": "false",
            "admin.ui": "false",
            "s3.port": self.port,
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.autoCreateBucket": "false",  # else a wrong name would make a bucket
            "s3.config": self._identities,
            "s3.cacheCapacityMB": 16,
            "bucket": ",".join(self._buckets),
            **self._others,
        }
        command = [str(WEED), "-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in options.items())]
        self.process = self._running.enter_context(running(command, self.folder / "weed.log", self._answers))

    def stop(self) -> None:
        """End it at once, as if the machine went; what was written stays."""
        self._running.close()
        for port in (self.port, *self._others.values()):
            for left in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # it puts them there, and leaves them
                left.unlink()

    def _answers(self) -> bool:
        client = self.client()
        try:
            for bucket in self._buckets:
                # What was written before can be read some time after new things can be written.
                for item in client.list_objects_v2(Bucket=bucket, MaxKeys=5).get("Contents", []):
                    client.get_object(Bucket=bucket, Key=item["Key"])["Body"].read()
                client.put_object(Bucket=bucket, Key=".ready", Body=b"")
                client.delete_object(Bucket=bucket, Key=".ready")
        except (BotoCoreError, ClientError):
            return False
        return True


_PORTS = (
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

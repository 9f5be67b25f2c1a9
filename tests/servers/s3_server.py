"""A real S3 server (SeaweedFS) on ports of its own, for tests."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from fraud_cli.stack import servers
from tests.servers.processes import free_port, running

WEED = servers.find("s3")
BUCKET = "fraud"
SECRET = "secret-key-of-the-tests"


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
        self._ports = [free_port() for _ in servers.S3_PORTS]
        self.port = self._ports[0]
        self.url = f"http://127.0.0.1:{self.port}"
        self._buckets = buckets or (BUCKET,)
        (folder / "data").mkdir()
        self._identities = folder / "identities.json"
        self.environment = self.environment_of("admin")
        # The last two may do what a bucket policy lets them.
        rights = {"admin": servers.EVERYTHING, "reader": ("Read", "List"), "pipeline": (), "scorer": ()}
        keys = {name: (access_key(name), SECRET, allowed) for name, allowed in rights.items()}
        self._identities.write_text(json.dumps(servers.s3_identities(keys)))
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
        command = servers.s3(str(WEED), self.folder / "data", self._ports, self._identities, self._buckets)
        self.process = self._running.enter_context(running(command, self.folder / "weed.log", self._answers))

    def stop(self) -> None:
        """End it at once, as if the machine went; what was written stays."""
        self._running.close()
        servers.remove_sockets(self._ports)

    def _answers(self) -> bool:
        return servers.takes_objects(self.client(), self._buckets)

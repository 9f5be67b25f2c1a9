"""Dagster's S3 resource, as the pipeline uses it. Imported only where the store is S3."""

from typing import Any

from dagster_aws.s3 import S3Resource

from fraud_core.storage.s3 import s3_client


class PatientS3Resource(S3Resource):
    """dagster-aws's S3 resource with the scorer's client: time-outs that its own does not have, and servers other than AWS."""

    def get_client(self) -> Any:
        """A boto3 S3 client, made from the standard AWS variables and profiles alone.

        Raises:
            SettingsError: they contradict each other.
        """
        return s3_client()

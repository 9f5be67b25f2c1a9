"""The one IO manager: what assets return goes into the object store, and what they ask for comes back verified."""

from typing import Any

import dagster as dg

from fraud_assets.delivery import delivery
from fraud_assets.installation import Installation
from fraud_assets.reports import catalog
from fraud_assets.reports.markdown import sample_table
from fraud_core.fields import schema
from fraud_core.fields.declared import Declared
from fraud_core.storage.artifacts import Document, Estimator, Pointer, Table

SAMPLE_ROWS = 5


def build(installation: Installation) -> dg.IOManagerDefinition:
    """The IO manager as a resource: no step of a run begins where the store takes no writes."""

    @dg.io_manager(description="What assets return goes into the object store, and comes back verified.")
    def artifacts(_: dg.InitResourceContext) -> ArtifactIOManager:
        installation.artifacts.check_writable()
        return ArtifactIOManager(installation)

    return artifacts


class ArtifactIOManager(dg.IOManager):
    """Writes content-addressed artifacts with their pointer last, and shows what was written as metadata."""

    def __init__(self, installation: Installation) -> None:
        self._project = installation

    def handle_output(self, context: dg.OutputContext, obj: Table | Document | Estimator) -> None:
        """Write what an asset returned."""
        partition = context.partition_key if context.has_asset_partitions else None
        asset = context.asset_key.path[-1]
        pointer = self._project.artifacts.write(asset, partition, obj)
        declared = self._project.source.declared
        context.add_output_metadata(written(pointer, obj, self._project.artifacts.store.uri(pointer.key), declared))
        if isinstance(obj, Table):
            lineage = catalog.column_lineage(self._project.source, asset, obj.frame.columns)
            context.add_output_metadata({} if lineage is None else {"dagster/column_lineage": lineage})
        context.add_output_metadata(delivery.note(self._project, pointer, context.run_id, obj, context.log))

    def load_input(self, context: dg.InputContext) -> Any:
        """Read what an asset needs: the body of a document, or a fitted object whose signed hash holds."""
        asset = context.asset_key.path[-1]
        pointer = self._project.artifacts.pointer(asset)
        if pointer is not None and pointer.format == "json":
            return self._project.artifacts.document(asset)
        return self._project.artifacts.estimator(asset)


def written(pointer: Pointer, value: Table | Document | Estimator, uri: str, declared: Declared) -> dict[str, Any]:
    """Metadata of a write: where, how large, which hashes, the facts; of a table, its schema and a sample, nothing personal."""
    shown: dict[str, Any] = {
        "uri": dg.MetadataValue.path(uri),
        "bytes": pointer.size,
        "sha256": pointer.sha256,
        "content": pointer.content,
        **{name: value for name, value in pointer.facts.items() if not name.endswith("_us")},
    }
    if isinstance(value, Table):
        shown["dagster/row_count"] = len(value.frame)
        shown["dagster/column_schema"] = catalog.table_schema(dict(value.frame.schema), declared)
        columns = schema.shown_columns(value.frame.columns, declared.columns)
        shown["sample"] = dg.MetadataValue.md(sample_table(value.frame.select(columns).head(SAMPLE_ROWS).rows(named=True)))
    return shown

"""Every error this product raises on purpose. The message is a sentence that says what to do."""


class FraudError(Exception):
    """Base of all errors that a user can act on; front ends print the message alone, without a traceback."""


class SettingsError(FraudError):
    """A setting is missing or contradicts another."""


class SourceError(FraudError):
    """A data source cannot be read as its TOML declares: names the file and, where known, column and line."""


class PartitionError(FraudError):
    """A partition key is unknown, or a partition that another one needs is missing."""


class StoreError(FraudError):
    """The object store cannot be reached, or refuses."""


class SchemaError(StoreError):
    """The SQL database has a schema that this program does not know."""


class StoreConflictError(StoreError):
    """A conditional write lost: somebody else wrote the key in between."""


class IntegrityError(FraudError):
    """A hash or signature does not hold: the bytes are not those that were written by this installation."""


class NotYetTrainableError(FraudError):
    """There is too little label-mature data for the split; not a failure, more data will cure it."""


class FeatureError(FraudError):
    """A feature cannot be learned from as it is declared; names it, and what to declare instead."""


class HoldoutError(FraudError):
    """The hold-out cannot carry a figure: without fraud, or with too little of it."""


class GateRefusalError(FraudError):
    """The drift gate does not let this data train a model."""


class PromotionError(FraudError):
    """A candidate may not become champion, or a version cannot be pointed at."""


class DataVersionError(FraudError):
    """A version of the data cannot be made, pushed or brought back."""


class DeliveryError(FraudError):
    """Something that is queued for another server was not taken; it stays queued."""

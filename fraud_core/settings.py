"""All settings, read from the environment (prefix ``FRAUD_``) or a ``.env`` file. `.env.example` is made from this file."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fraud_core.errors import SettingsError

Port = Annotated[int, Field(ge=1, le=65535)]
PortOrNone = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(gt=0)]
Amount = Annotated[float, Field(ge=0)]


class Settings(BaseSettings):
    """Everything a person may set. Each default works on a laptop with no account, no key and no server."""

    model_config = SettingsConfigDict(env_prefix="FRAUD_", env_file=".env", env_ignore_empty=True, extra="ignore")

    home: Path = Field(Path(".fraud"), description="Folder that holds all state.")
    source: Path = Field(Path("sources/simulated.toml"), description="TOML of the data source of this installation.")
    store: str = Field("", description="Object store: a directory or s3://bucket/prefix. Empty: the folder `store` of the home.")
    card_key: SecretStr | None = Field(
        None, description="Key of the card hashes, 32 bytes in hex. Made under the home on first use; must be given with s3."
    )
    signing_key: SecretStr | None = Field(
        None, description="Key that signs artifacts, 32 bytes in hex. Made under the home on first use; must be given with s3."
    )
    database: SecretStr | None = Field(
        None,
        description="SQL database of decisions, labels, users, API keys and the review queue: "
        "postgresql://user:password@host/name. "
        "Empty: an SQLite file under the home.",
    )
    history: SecretStr | None = Field(
        None,
        description="Where the scorer keeps what cards and merchants did: redis://host:6379/0 (or rediss://). "
        "Empty: an SQLite file under the home.",
    )
    history_timeout: Count = Field(250, description="After so many milliseconds a silent history store is taken to be gone.")
    decision_retention_days: Count = Field(400, description="How long a decision is kept.")
    decision_sync: Literal["process", "power"] = Field(
        "process",
        description="What an answered decision in an SQLite file survives: the end of the process, or a loss of power as well.",
    )
    decision_log_timeout: Count = Field(
        250,
        description="After so many milliseconds a decision log that is locked or silent is taken to be gone; decisions then wait "
        "on the machine's own disk.",
    )
    decision_spool: Count = Field(
        100_000, description="Decisions that are kept on the machine's own disk while the database is gone."
    )
    record: Literal["on", "off"] = Field(
        "on",
        description="Whether the API records payments and logs decisions. off: for a shadow of a scorer; a payment that is sent "
        "again is scored again.",
    )
    history_spool: Whole = Field(
        200_000, description="Payments that wait on this machine's disk, at most, while the history store is gone."
    )
    features_logged: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of approvals logged with their features, for the check `no_skew`; other decisions all are.",
    )
    degraded_review_amount: Amount = Field(
        200.0, description="While the history store is gone, payments from this amount on are at least reviewed."
    )
    seed: Whole = Field(20, description="Seed of every random draw.")
    threads: Count = Field(2, description="Threads while fitting (BLAS and OpenMP).")

    max_training_rows: int = Field(
        400_000, ge=1_000, description="Cap on training rows; legitimate ones are thinned by a seeded draw and weighted up."
    )
    min_holdout_frauds: Count = Field(30, description="A hold-out or validation block with fewer frauds gives no figure.")
    bootstrap_draws: int = Field(400, ge=100, description="Bootstrap draws over cards behind every interval.")
    review_capacity: Count = Field(50, description="Alerts a day that the analysts can look at.")
    review_cost: Amount = Field(5.0, description="Cost of one review, in the currency of the amounts.")
    false_decline_cost: Amount = Field(30.0, description="Cost of declining a legitimate payment, in the same currency.")

    promotion_margin: float = Field(
        0.01, ge=0, description="The lower end of candidate minus champion, in average precision, must lie above minus this."
    )
    promotion_decline: float = Field(
        0.02,
        ge=0,
        description="A candidate may lie this far below the best champion of the last twelve months, on the same rows.",
    )
    promotion_lift: float = Field(
        5.0, ge=1, description="The lower end of the candidate's average precision must be this many times the fraud rate."
    )

    drift_detector: Literal["auto", "alibi-detect", "scipy"] = Field(
        "auto",
        description="Who computes the gate's p-values; verdicts are the same. auto: alibi-detect where the extra `alibi` is "
        "installed, as on a development machine, else SciPy. alibi-detect's licence does not allow production use.",
    )

    dagster_port: Port = Field(3000, description="Port of the Dagster UI, on loopback.")
    dagster_auth: Literal["auto", "users", "off"] = Field(
        "auto",
        description="Who may use the Dagster UI. users: the desk's users of the role `lead` (`fraud users`), whose names then "
        "stand under what they decide. off: whoever reaches it, on loopback alone. auto: off on a loopback address, else users.",
    )
    allowed_hosts: str = Field(
        "",
        description="More names, by commas, under which browsers may reach the Dagster UI, and the API where no key is asked. "
        "127.0.0.1, localhost and the name in FRAUD_DAGSTER_URL are known.",
    )
    log_format: Literal["console", "json"] = Field("console", description="How the command line logs.")

    # Where versions of the data and records of trainings go.
    dvc_remote: str = Field(
        "",
        validation_alias=AliasChoices("fraud_dvc_remote", "dvc_remote"),
        description="Where DVC pushes data versions: a folder or s3://bucket/prefix (DVC_REMOTE says the same). "
        "Empty: the folder `dvc-remote` of the home. off: no data versions.",
    )
    mlflow_url: SecretStr | None = Field(
        None,
        description="MLflow's tracking server, or the SQL database of one: http://host:5000, "
        "https://dagshub.com/OWNER/REPO.mlflow, postgresql://user:password@host/name. "
        "Empty: SQLite and files under the home. off: nothing is tracked.",
    )
    mlflow_username: str = Field(
        "", description="Who logs in to the tracking server; MLflow's own MLFLOW_TRACKING_USERNAME works, too."
    )
    mlflow_password: SecretStr | None = Field(
        None, description="The password, or DagsHub's token; MLflow's own MLFLOW_TRACKING_PASSWORD works, too."
    )
    mlflow_port: Port = Field(5000, description="Port of MLflow's pages, on loopback, where no server of your own has them.")

    # The servers that `fraud up --stack full` starts, on loopback.
    s3_port: Count = Field(
        8333, le=65_526, description="Port of the S3 server of the full stack; its parts take the nine ports above it."
    )
    redis_port: Port = Field(6380, description="Port of the full stack's Redis; Debian starts one of its own at 6379.")
    prometheus_port: Port = Field(9090, description="Port of the full stack's Prometheus.")
    alertmanager_port: Port = Field(9093, description="Port of the full stack's Alertmanager.")

    # What acts by itself, and whom it tells.
    automation: Literal["on", "off"] = Field(
        "on", description="Whether the sensors that read new files, take partitions and train are running from the start."
    )
    alertmanager_url: str = Field("", description="Alertmanager that is told of failed checks and runs: http://host:9093.")
    webhook_url: SecretStr | None = Field(
        None, description="Is sent every failed check and run as JSON with a `text`, as Slack's incoming webhooks take it."
    )
    dagster_database: SecretStr | None = Field(
        None,
        description="PostgreSQL that keeps Dagster's runs and events, in a database of its own: "
        "postgresql://user:password@host/name. Empty: SQLite under the home.",
    )
    broker: SecretStr | None = Field(
        None,
        description="Redis that hands raw and transformed partitions to workers (`fraud worker`): redis://host:6379/1. "
        "Needs FRAUD_DAGSTER_DATABASE, a store and keys that all machines share. Empty: runs stay on Dagster's machine.",
    )
    owner: str = Field(
        "team:fraud",
        pattern=r"^(team:[\w.-]+|[^@\s]+@[^@\s]+\.[^@\s]+)$",
        description="Whose the assets are in Dagster's catalog: an address, or `team:` and a name.",
    )
    dagster_url: str = Field(
        "", description="Where people reach the Dagster UI, for links. Empty: on this machine's dagster_port."
    )

    docs_url: str = Field(
        "",
        description="Where the site that `make docs` builds is published, for the links to runbooks in alerts. "
        "Empty: alerts name the page in the repository.",
    )

    # The scoring API.
    api_host: str = Field("127.0.0.1", description="Address the API binds to.")
    api_port: PortOrNone = Field(8000, description="Port of the API.")
    api_workers: Count = Field(1, le=64, description="Processes that serve the API.")
    api_auth: Literal["auto", "keys", "off"] = Field(
        "auto",
        description="Who may call. keys: whoever has an API key. off: everybody. "
        "auto: off on a loopback address, keys on any other.",
    )
    api_open_to_everyone_who_reaches_it: bool = Field(
        False, description="With FRAUD_API_AUTH=off on an address that is not loopback, the API starts only if this says true."
    )
    api_rate: Seconds = Field(1_000.0, description="Requests a second that an API key may make, over all workers.")
    api_rate_burst: Count = Field(2_000, description="Requests that an API key may make at once before the rate holds it.")
    api_unknown_fields: Literal["refuse", "ignore", "keep"] = Field(
        "refuse",
        description="What becomes of a payment's field that is not declared: the payment is refused, the field ignored, "
        "or kept in the decision log for people; a file's column of that kind is left out. Models never learn from one.",
    )
    api_body_bytes: int = Field(32_768, ge=1_024, description="Longest body of a request about one transaction.")
    api_batch_bytes: int = Field(16_777_216, ge=1_024, description="Longest body of a batch.")
    api_body_seconds: Seconds = Field(10.0, description="A body must have arrived after so long; a file has max_upload_seconds.")
    api_drain_seconds: Amount = Field(
        1.0, description="After SIGTERM the API goes on answering for so long, and asks its callers to go elsewhere."
    )
    api_stop_seconds: Count = Field(60, description="After that, running requests have so long to finish.")
    rates: Path | None = Field(
        None,
        description="CSV of daily rates (date, currency, rate) by which the API and the desk convert amounts, read anew when it "
        "changes. Empty: the one that the TOML of FRAUD_SOURCE names.",
    )
    poll_seconds: Seconds = Field(2.0, description="How often the scorer looks for a newer champion.")
    max_upload: Count = Field(2_000_000_000, description="Longest file that may be sent for scoring, in bytes.")
    max_upload_seconds: Seconds = Field(3_600.0, description="A file must have arrived after so long.")
    spool_quota: Count = Field(6_000_000_000, description="Bytes that all files sent for scoring may take on disk at a time.")
    files_at_once: Count = Field(2, description="Files that each process of the API scores at a time.")
    file_memory: int = Field(
        1_000_000_000,
        ge=300_000_000,
        description="Memory that scoring one file may take, in bytes; a file that needs more is refused.",
    )

    file_seconds: Seconds = Field(3_600.0, description="Scoring one file may take so long, and is ended then.")
    file_step_seconds: Seconds = Field(
        20.0, description="Reading on in a file may take so long at a time; its scoring is ended then, and that is answered."
    )
    file_stall_seconds: Seconds = Field(
        60.0, description="Whoever takes nothing of the answer to a file, or sends nothing of it, for so long is cut off."
    )
    files_per_key: Count = Field(1, description="Files that each process of the API scores at a time for one API key.")

    # What can be seen of it all.
    metrics_access: Literal["open", "key"] = Field(
        "open",
        description="Who may read /metrics where the API asks for keys. open: everybody. key: whoever has a key of the scope "
        "`metrics`.",
    )
    metrics_port: PortOrNone = Field(0, description="Port of the scorer's /metrics. 0: the API's own.")
    metrics_host: str = Field("127.0.0.1", description="Address that metrics_port and exporter_port are bound to.")
    exporter_port: Port = Field(9109, description="Port at which `fraud exporter` tells of the pipeline.")
    traces_url: str = Field(
        "",
        description="OpenTelemetry collector that takes a trace of each scoring request by OTLP over HTTP: "
        "http://127.0.0.1:4318/v1/traces. Empty: no traces.",
    )

    # The analyst's desk.
    ui_host: str = Field("127.0.0.1", description="Address the analyst's desk binds to.")
    ui_port: PortOrNone = Field(7860, description="Port of the analyst's desk.")
    ui_auth: Literal["auto", "users", "off"] = Field(
        "auto",
        description="Who may use the desk. users: whoever signs in (`fraud users`). off: whoever reaches it, on loopback alone. "
        "auto: off on a loopback address, users on any other.",
    )
    ui_trusted_proxies: str = Field(
        "",
        description="Proxies before the desk whose X-Forwarded-For and X-Forwarded-Proto are believed: addresses or networks, "
        "with commas between; * where nothing else reaches the desk. Empty: none.",
    )
    ui_upload_files: Count = Field(20, description="Files that a user of the desk may have sent and not scored yet.")
    ui_upload_quota: Count = Field(
        3_000_000_000, description="Bytes that the files of one user of the desk may take; spool_quota bounds those of all."
    )
    review_claim_minutes: Count = Field(30, description="A case of the review queue comes back so long after it was taken.")

    @model_validator(mode="after")
    def _resolve(self) -> "Settings":
        self.home = self.home.expanduser().resolve()
        if self.store.startswith("s3://") and (self.card_key is None or self.signing_key is None):
            raise SettingsError(
                "With an S3 store, FRAUD_CARD_KEY and FRAUD_SIGNING_KEY must be set, so that every machine uses the same keys. "
                "Make each once with `openssl rand -hex 32` and keep them in your secret store."
            )
        if self.broker is not None:
            _check_shared(self)
        return self

    @property
    def dagster_link(self) -> str:
        """Where the Dagster UI is, the default filled in, without a slash at the end."""
        return (self.dagster_url or f"http://127.0.0.1:{self.dagster_port}").rstrip("/")

    @property
    def store_url(self) -> str:
        """URL of the object store, the default filled in."""
        return self.store or str(self.home / "store")


def _check_shared(settings: Settings) -> None:
    """See that machines that work together are told what they share. The store cannot be asked; a shared folder looks like any.

    Raises:
        SettingsError: something is missing.
    """
    assert settings.broker is not None
    if not settings.broker.get_secret_value().startswith(("redis://", "rediss://")):
        raise SettingsError("FRAUD_BROKER must look like redis://host:6379/1.")
    missing = [
        f"FRAUD_{name.upper()}"
        for name in ("dagster_database", "store", "card_key", "signing_key")
        if not getattr(settings, name)
    ]
    if missing:
        raise SettingsError(
            f"Workers on several machines share what FRAUD_BROKER alone does not name; set {', '.join(missing)}, too."
        )


def env_example() -> str:
    """The text of `.env.example`: every setting with its description and default, commented out."""
    lines = [
        "# Every setting, with its default. Copy to .env and uncomment what you change.",
        "# Made from fraud_core/settings.py by `fraud settings --example`; a test keeps the two equal.",
    ]
    defaults = Settings.model_fields
    for name, field in defaults.items():
        value = "" if field.default is None else field.default
        lines += ["", f"# {field.description}", f"#FRAUD_{name.upper()}={value}"]
    return "\n".join(lines) + "\n"

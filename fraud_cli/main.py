"""The command `fraud`. Heavy parts are imported only by the command that needs them."""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from fraud_cli.everywhere import everywhere
from fraud_core.errors import FraudError, SettingsError
from fraud_core.settings import Settings, env_example
from fraud_core.system.private import keep_private


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status.

    0: well; 1: an error that the message explains; 2: wrong usage; 130: stopped by Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    os.environ.update(everywhere(os.environ))  # before a library makes its connections, and for all that is started
    # Dagster announces which of its own parts are young, once for each; that is for developers.
    warnings.filterwarnings("ignore", message=".*is currently in (beta|preview)")
    try:
        return int(arguments.run(arguments) or 0)
    except (FraudError, OSError) as error:
        print(f"fraud: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("fraud: stopped; what was finished is kept, and the same command goes on from there.", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fraud", description="Card-payment fraud detection that you run yourself.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: object, help_text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help_text, description=help_text)
        command.set_defaults(run=run)
        command.add_argument("--home", type=Path, help="folder that holds all state (default: FRAUD_HOME, or ./.fraud)")
        command.add_argument("--source-config", type=Path, help="TOML of the data source (default: FRAUD_SOURCE)")
        return command

    pipeline = add("pipeline", _pipeline, "Take every partition through the asset graph in order, then train.")
    pipeline.add_argument(
        "--file", action="append", default=[], help="read this file (or glob) instead of the TOML's paths; repeatable"
    )
    pipeline.add_argument("--until", metavar="KEY", help="stop after this partition")
    pipeline.add_argument("--each", action="store_true", help="train after every partition, as automation would")

    _add_up(add)

    add("models", _models, "List the versions: champion, figures, withdrawn.")
    rollback = add("rollback", _rollback, "Point at an older version and withdraw the present champion.")
    rollback.add_argument("version")
    restore = add("restore", _restore, "Undo a rollback: a withdrawn version serves again.")
    restore.add_argument("version")
    accept = add("accept", _accept, "Let a partition train although the drift gate rejected it; for its present content only.")
    accept.add_argument("partition")
    refuse = add("refuse", _refuse, "Keep a partition from training, or take an acceptance back.")
    refuse.add_argument("partition")
    confirm = add("confirm", _confirm, "Let the gate decide by the rules that the source's TOML declares by now.")
    confirm.add_argument(
        "--restored", action="store_true", help="instead: the store was restored from a backup; take it as it is, and go on"
    )
    for command in (rollback, restore, accept, refuse, confirm):
        command.add_argument("--reason", required=True, help="why, in words; it is kept with the decision")
        command.add_argument("--who", default="", help="who decides (shown as unverified; default: the operating system's user)")

    calibrate = add("calibrate", _calibrate, "How the drift gate would have judged the partitions at hand, walking forward.")
    calibrate.add_argument(
        "--simulated", action="store_true", help="also false alarms and power on simulated partitions (ten minutes)"
    )

    serve = add("serve", _serve, "Serve the scoring API until Ctrl-C.")
    serve.add_argument("--host", help="address to bind to (default: FRAUD_API_HOST)")
    serve.add_argument("--port", type=int, help="port (default: FRAUD_API_PORT; 0 takes a free one)")
    serve.add_argument("--workers", type=int, help="processes (default: FRAUD_API_WORKERS)")

    _add_beside_dagster(add)

    data = add("data", _data, "Bring back what a model was trained on, verified by hash.")
    data.add_argument("action", choices=["checkout"])
    data.add_argument("version", help="a model's version; `fraud models` lists them")
    data.add_argument("--to", type=Path, help="new folder for it (default: checkouts/VERSION of the home)")
    data.add_argument("--retrain", action="store_true", help="train on it, and say whether that gives the same version")

    _add_database(add)

    _add_desk(add)

    served = add("served", _served, "Payments that were scored online, as a source of their own (sources/served.toml).")
    served.add_argument("action", choices=["export"])
    served.add_argument("--to", type=Path, help="folder that the files are added to (default: served in the home)")

    simulate = add("simulate", _simulate, "Write simulated transactions to a CSV or Parquet file.")
    simulate.add_argument("--out", type=Path, required=True, help="file to write: .csv or .parquet")
    simulate.add_argument("--until", metavar="KEY", help="last partition (default: the source's last)")

    settings = add("settings", _settings, "Show the settings in force; secrets are not shown.")
    settings.add_argument("--example", action="store_true", help="print .env.example instead")
    return parser


def _add_up(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The command that runs everything."""
    up = add("up", _up, "Make a champion if there is none, and run everything there is a page or an API for, until Ctrl-C.")
    up.add_argument(
        "--stack",
        choices=["embedded", "full"],
        default="embedded",
        help="full: with an S3 server, Redis, MLflow, Prometheus and Alertmanager beside it (default: embedded)",
    )


def _add_database(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands of the SQL database: its schema, and the API keys in it."""
    database = add("db", _db, "The SQL database: show the version of its schema, or bring it up to date.")
    database.add_argument("action", choices=["status", "upgrade"])

    keys = add("keys", _keys, "Make, list and revoke API keys.")
    keys.add_argument("action", choices=["create", "list", "revoke"])
    keys.add_argument("name", nargs="?", help="create: who will hold it; revoke: the key's id")
    keys.add_argument("--scope", action="append", default=[], help="score, label, metrics or admin; repeatable (default: score)")


def _add_desk(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands of the analyst's desk."""
    ui = add("ui", _ui, "Serve the analyst's desk until Ctrl-C.")
    ui.add_argument("--host", help="address to bind to (default: FRAUD_UI_HOST)")
    ui.add_argument("--port", type=int, help="port (default: FRAUD_UI_PORT; 0 takes a free one)")

    users = add("users", _users, "Let people into the desk, and out: create, list, reset, revoke, role, card.")
    users.add_argument("action", choices=["create", "list", "reset", "revoke", "role", "card"])
    users.add_argument("name", nargs="?", help="who; small letters, digits, dots, dashes and underscores")
    users.add_argument("--role", choices=["analyst", "lead"], default="analyst", help="create, role: as what (default: analyst)")


def _add_beside_dagster(add: Callable[..., argparse.ArgumentParser]) -> None:
    """The commands that serve beside Dagster."""
    exporter = add("exporter", _exporter, "Serve the pipeline's metrics for Prometheus until Ctrl-C.")
    exporter.add_argument("--host", help="address to bind to (default: FRAUD_METRICS_HOST)")
    exporter.add_argument("--port", type=int, help="port (default: FRAUD_EXPORTER_PORT)")
    webserver = add("webserver", _webserver, "Dagster's web server behind a guard; takes all options of `dagster-webserver`.")
    webserver.add_argument("options", nargs=argparse.REMAINDER, help="those options, after `--`")
    worker = add("worker", _worker, "Make partitions that Dagster hands out over FRAUD_BROKER, until Ctrl-C.")
    worker.add_argument("--slots", type=int, default=1, help="partitions at a time, each in a process (default: 1)")
    worker.add_argument("--name", default="fraud", help="its name, one on each machine (default: fraud)")


def _load_settings(arguments: argparse.Namespace) -> Settings:
    given = {"home": arguments.home, "source": arguments.source_config}
    try:
        settings = Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:  # its own text shows the value, which may be a secret
        wrong = "; ".join(f"FRAUD_{str(e['loc'][0]).upper()}: {e['msg']}" for e in error.errors())
        raise SettingsError(f"A setting cannot be used: {wrong}. `fraud settings --example` explains each.") from error
    repaired = keep_private(settings)
    if repaired is not None:
        print(f"fraud: {repaired}", file=sys.stderr)
    return settings


def _pipeline(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.pipeline import run_pipeline

    return run_pipeline(_load_settings(arguments), tuple(arguments.file), until=arguments.until, each=arguments.each)


def _worker(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.worker import work

    return work(_load_settings(arguments), arguments.slots, arguments.name)


def _webserver(arguments: argparse.Namespace) -> int:
    from fraud_assets.access.webserver import serve
    from fraud_cli.instance import environment, open_instance

    settings = _load_settings(arguments)
    if "DAGSTER_HOME" not in os.environ:
        open_instance(settings).dispose()  # makes the tables, or says what stands in the way
        os.environ.update(environment(settings))
    serve(settings, [option for option in arguments.options if option != "--"])
    return 0


def _up(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.up import up

    return up(_load_settings(arguments), arguments.stack)


def _models(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.models import print_models

    return print_models(_load_settings(arguments))


def _rollback(arguments: argparse.Namespace) -> int:
    from fraud_assets.access.attribution import who_is_at_the_shell
    from fraud_assets.installation import Installation
    from fraud_assets.operations.rollback import rollback
    from fraud_cli.commands.pipeline import deliver

    installation = Installation.load(_load_settings(arguments))
    who = who_is_at_the_shell(arguments.who)
    withdrawn = rollback(installation, arguments.version, who=who, reason=arguments.reason)
    print(f"{arguments.version} is champion. {withdrawn} is withdrawn; `fraud restore {withdrawn}` takes that back.", flush=True)
    deliver(installation)
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    from fraud_assets.access.attribution import who_is_at_the_shell
    from fraud_assets.installation import Installation
    from fraud_assets.operations.rollback import restore
    from fraud_cli.commands.pipeline import deliver

    installation = Installation.load(_load_settings(arguments))
    restore(installation, arguments.version, who=who_is_at_the_shell(arguments.who), reason=arguments.reason)
    print(f"{arguments.version} is champion again.", flush=True)
    deliver(installation)
    return 0


def _accept(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.pipeline import overrule

    return overrule(_load_settings(arguments), arguments.partition, accept=True, who=arguments.who, reason=arguments.reason)


def _refuse(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.pipeline import overrule

    return overrule(_load_settings(arguments), arguments.partition, accept=False, who=arguments.who, reason=arguments.reason)


def _confirm(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.pipeline import confirm_rules

    settings = _load_settings(arguments)
    return confirm_rules(settings, who=arguments.who, reason=arguments.reason, restored=arguments.restored)


def _calibrate(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.calibrate import calibrate

    return calibrate(_load_settings(arguments), simulated=arguments.simulated)


def _serve(arguments: argparse.Namespace) -> int:
    from fraud_api.server import serve

    serve(_load_settings(arguments), arguments.host, arguments.port, arguments.workers)
    return 0


def _exporter(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.exporter import run_exporter

    return run_exporter(_load_settings(arguments), arguments.host, arguments.port)


def _data(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.data import check_out

    return check_out(_load_settings(arguments), arguments.version, arguments.to, retrain=arguments.retrain)


def _db(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.database.schema import print_status, upgrade_schema

    settings = _load_settings(arguments)
    return upgrade_schema(settings) if arguments.action == "upgrade" else print_status(settings)


def _keys(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.database.keys import list_keys, make_key, revoke_key

    settings = _load_settings(arguments)
    if arguments.action == "list":
        return list_keys(settings)
    if not arguments.name:
        raise SettingsError("Name who will hold the key (create), or the id of the key to revoke.")
    if arguments.action == "create":
        return make_key(settings, arguments.name, arguments.scope or ["score"])
    return revoke_key(settings, arguments.name)


def _ui(arguments: argparse.Namespace) -> int:
    from fraud_ui.server import serve

    serve(_load_settings(arguments), arguments.host, arguments.port)
    return 0


def _users(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.database.users import UserCommands

    commands = UserCommands(_load_settings(arguments))
    if arguments.action == "list":
        return commands.list()
    if not arguments.name:
        raise SettingsError("Name the person: `fraud users create NAME --role analyst`.")
    match arguments.action:
        case "create":
            return commands.create(arguments.name, arguments.role)
        case "reset":
            return commands.reset(arguments.name)
        case "role":
            return commands.change_role(arguments.name, arguments.role)
        case "card":
            return commands.add_card(arguments.name)
    return commands.revoke(arguments.name)


def _served(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.served import export_payments

    return export_payments(_load_settings(arguments), arguments.to)


def _simulate(arguments: argparse.Namespace) -> int:
    from fraud_cli.commands.simulate import write_simulated

    return write_simulated(_load_settings(arguments), arguments.out, arguments.until)


def _settings(arguments: argparse.Namespace) -> int:
    if arguments.example:
        print(env_example(), end="")
        return 0
    for name, value in _load_settings(arguments):
        print(f"FRAUD_{name.upper()}={'' if value is None else value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

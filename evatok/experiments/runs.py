"""Stores of runs: Sacred's folders and MongoDB, and a listing of the folders.

`python -m evatok.experiments.runs [FOLDER]` prints the listing.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import warnings
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from evatok import errors
from evatok.errors import EvatokError
from evatok.storage import records
from evatok.storage.arguments import with_debug
from evatok.storage.files import ordinary, remove_abandoned, replacing, write_json, writing

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import sacred
    from sacred.dependencies import get_digest
    from sacred.observers import FileStorageObserver, MongoObserver, RunObserver
    from sacred.observers.mongo import parse_mongo_db_arg
    from sacred.serializer import flatten

BEAT_SECONDS = float(sacred.SETTINGS.DEFAULT_BEAT_INTERVAL)
MONGO_TIMEOUT_MS = 2000
STORE_FILES = ("run.json", "config.json", "cout.txt", "metrics.json", "info.json")


class StoreError(EvatokError, ValueError):
    """A store of runs that is unusable."""


class RunFolder(FileStorageObserver):
    """Sacred's file store, with JSON files that stay valid and complete, even after a kill."""

    def started_event(self, *args: Any, **kwargs: Any) -> Any:
        """Start a run; remove what a killed run of the same experiment left half written."""
        for folder in Path(self.basedir).glob("*/"):
            remove_abandoned(folder)
        return super().started_event(*args, **kwargs)

    def save_json(self, obj: Any, filename: str) -> None:
        """Write `obj` in one step, with null for non-finite numbers."""
        content = records.plain(flatten(obj), filename, nonfinite_as_null=True)
        write_json(Path(str(self.dir)) / filename, content)

    def find_or_save(self, filename: str, store_dir: Path) -> Path:
        """Keep a copy of a file under a name containing its hash: a copy truncated by a kill would stay for good."""
        source = Path(filename)
        path = Path(store_dir) / f"{source.stem}_{get_digest(filename)}{source.suffix}"
        if not path.exists():
            with replacing(path, size=source.stat().st_size) as partial:
                shutil.copyfile(source, partial)
        return path

    def interrupted_event(self, interrupt_time: datetime, status: str) -> None:
        """Store that the run was interrupted, unless it had not been stored yet."""
        if self.run_entry is not None:
            super().interrupted_event(interrupt_time, status)

    def failed_event(self, fail_time: datetime, fail_trace: list[str]) -> None:
        """Store that the run failed, unless it had not been stored yet."""
        if self.run_entry is not None:
            super().failed_event(fail_time, fail_trace)

    def save_cout(self) -> None:
        """Write the captured output; a full disk is reported with the file's name."""
        with writing(Path(str(self.dir)) / "cout.txt"):
            super().save_cout()


def runs_folder() -> Path:
    """Return where runs are stored by default: EVATOK_RUNS, or results/runs below the current folder."""
    return Path(os.environ.get("EVATOK_RUNS") or Path("results", "runs"))


def list_runs(folder: Path | str | None = None, died_after: float | None = None) -> pd.DataFrame:
    """List every run below `folder`, oldest first: id, experiment, status, started and heartbeat (UTC).

    A RUNNING run is shown as DIED once its last heartbeat is `died_after` seconds old (default: three of its own
    intervals, usually 30 s). An unreadable file shows as UNREADABLE.
    """
    paths = Path(folder or runs_folder()).glob("**/run.json")
    rows = [_row(path, died_after) for path in paths]
    columns = ["id", "experiment", "status", "started", "heartbeat"]
    return pd.DataFrame(rows, columns=columns).sort_values("started", ignore_index=True)


def stores(name: str, folder: str | None, address: str | None, given: bool) -> list[RunObserver]:
    """Return the stores for a run of experiment `name`: those requested, or the default folder if none was.

    `folder` is where run folders go, `address` that of a MongoDB; `given` says that the run already has a store. Raises
    StoreError if no MongoDB answers at `address`, or if a folder cannot be written to.
    """
    chosen: list[RunObserver] = [_mongo_store(address)] if address else []
    if folder or not (chosen or given):
        chosen.append(RunFolder(_writable(Path(folder) if folder else runs_folder() / name)))
    return chosen


def _writable(folder: Path) -> Path:
    """Return the folder, created if needed: Sacred finds out too late, and in its own words."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"runs cannot be stored in {folder} ({error.strerror}): give -F FOLDER or EVATOK_RUNS"
        ) from error
    if not os.access(folder, os.W_OK):
        raise StoreError(f"runs cannot be stored in {folder}, it is not writable: give -F FOLDER or EVATOK_RUNS")
    return folder


def _row(path: Path, died_after: float | None) -> dict[str, Any]:
    """Return a run's row; a damaged file does not keep the others from being listed."""
    try:
        if not path.is_file():
            raise ValueError("a pipe, a folder or a broken link")
        return _read_row(json.loads(ordinary(path).read_text(encoding="utf-8")), path, died_after)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        name = path.parent.parent.name
        return {
            "id": f"{name}/{path.parent.name}",
            "experiment": name,
            "status": "UNREADABLE",
            "started": None,
        }


def _read_row(entry: dict[str, Any], path: Path, died_after: float | None) -> dict[str, Any]:
    name, status = str(entry["experiment"]["name"]), str(entry["status"])
    options = entry["meta"].get("options", {})
    started, heartbeat = _time(entry.get("start_time")), _time(entry.get("heartbeat"))
    limit = died_after if died_after is not None else 3 * float(options.get("--beat-interval") or BEAT_SECONDS)
    last = heartbeat or started
    if status == "RUNNING" and last is not None and (datetime.now(UTC) - last).total_seconds() > limit:
        status = "DIED"
    run_id = f"{name}/{path.parent.name}"
    return {"id": run_id, "experiment": name, "status": status, "started": started, "heartbeat": heartbeat}


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).replace(tzinfo=UTC)


def _mongo_store(address: str) -> MongoObserver:
    """Return the MongoDB at `[host:port:]database` or a mongodb:// URL. Raises StoreError if none answers in 2 s."""
    try:
        import pymongo
        from pymongo.errors import PyMongoError
        from pymongo.uri_parser import parse_uri
    except ImportError as error:
        raise StoreError("storing runs in MongoDB needs pymongo: pip install evatok[mongo]") from error
    shown = re.sub(r"(?<=://)[^/@]+@", "", address)
    client: pymongo.MongoClient[dict[str, Any]]
    target: dict[str, Any]
    try:
        if "://" in address:
            target = {"url": address, "db_name": parse_uri(address)["database"] or "sacred"}
        else:
            target = parse_mongo_db_arg(address)
        with pymongo.MongoClient(target.get("url"), serverSelectionTimeoutMS=MONGO_TIMEOUT_MS) as client:
            client.admin.command("ping")
    except AttributeError as error:  # Sacred's parser raises it for an address it cannot read
        raise StoreError(f"-m {shown} is not [HOST:PORT:]DATABASE or a mongodb:// URL") from error
    except PyMongoError as error:
        reason = str(error).partition(",")[0].splitlines()[0]
        advice = "start the server, or leave out -m to store runs in files"
        raise StoreError(f"no MongoDB answers at {shown} ({reason}): {advice}") from error
    return MongoObserver(**target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", metavar="FOLDER", help="of runs (default: EVATOK_RUNS, or runs)")
    options = with_debug(parser).parse_args()
    with errors.one_line("evatok.experiments.runs", debug=options.debug):
        print(list_runs(options.folder).to_string(index=False))

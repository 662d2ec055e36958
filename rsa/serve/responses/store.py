"""Responses on the disk, in the folder `responses` of the folder of runs: one folder each.

response.json   what was asked and the response as it stands, replaced as a whole
events.jsonl    of a response in the background: the events that were told, a line each, appended
unfinished      there as long as it is worked on in the background: what the next server goes on with
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rsa.errors import RunFolderError
from rsa.folders import make_folder, read_versioned, write_atomically, write_record
from rsa.results import Record
from rsa.serve.errors import ApiError
from rsa.serve.responses.request import CreateResponse
from rsa.serve.responses.response import Response

FORMAT = 1
FOLDER = "responses"
RECORD, EVENTS, UNFINISHED = "response.json", "events.jsonl", "unfinished"
_ID = re.compile(r"resp_[0-9a-f]{32}")


class StoredResponse(Record):
    """The content of response.json. `run_id`: of the run that answers, if it is one."""

    format: int = FORMAT
    request: CreateResponse
    response: Response
    run_id: str | None = None


def new_id() -> str:
    return f"resp_{secrets.token_hex(16)}"


class ResponseStore:
    """All responses of a folder of runs. Its methods block for small files."""

    def __init__(self, runs: Path) -> None:
        self._folder = runs / FOLDER

    def read(self, response_id: str, *, param: str = "response_id", code: str = "response_not_found") -> StoredResponse:
        """Raises ApiError (404) if there is none of this id, and RunFolderError for one that cannot be read."""
        path = self._folder / response_id / RECORD
        if not _ID.fullmatch(response_id) or not path.is_file():
            raise ApiError(404, f"there is no response {response_id!r} here", param=param, code=code)
        return read_versioned(path, StoredResponse, RunFolderError, FORMAT, instead="ask again")

    def write(self, stored: StoredResponse) -> None:
        """Keep a response, and whether it is worked on in the background. Raises RunFolderError."""
        folder = self._folder / stored.response.id
        try:
            make_folder(folder)
            write_record(folder / RECORD, stored)
            if stored.response.ended:
                (folder / UNFINISHED).unlink(missing_ok=True)
            else:
                (folder / UNFINISHED).touch()
        except OSError as error:
            raise RunFolderError(f"cannot keep the response in {folder}: {error.strerror}") from None

    def delete(self, response_id: str) -> None:
        """Raises ApiError (404) if there is none of this id."""
        self.read(response_id)
        shutil.rmtree(self._folder / response_id, ignore_errors=True)

    def unfinished(self) -> list[str]:
        """Ids of responses that a server left unfinished in the background."""
        return sorted(path.parent.name for path in self._folder.glob(f"resp_*/{UNFINISHED}"))

    def tell(self, response_id: str, lines: Sequence[str]) -> None:
        """Append events. Nobody waits for the disk: what a power cut takes of them is told anew."""
        with suppress(OSError), (self._folder / response_id / EVENTS).open("ab") as file:
            file.write("".join(f"{line}\n" for line in lines).encode())

    def told(self, response_id: str) -> list[str]:
        """The events that were told of a response in the background; a line that was cut off is none, and goes."""
        path = self._folder / response_id / EVENTS
        try:
            data = path.read_bytes()
        except OSError:
            return []
        whole = data[: data.rfind(b"\n") + 1]
        if whole != data:
            write_atomically(path, whole)
        return whole.decode().splitlines()

"""Which devices of this machine get a worker: what `--devices` asks for, and what is here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

from rsa.errors import ConfigError
from rsa.words import plural

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""The variable that says which GPUs a process may see."""
LIST_TIMEOUT_S = 30.0
"""Time limit of asking the driver for its GPUs: it takes seconds where it is not kept loaded."""


@dataclass(frozen=True, slots=True)
class Device:
    """What a worker computes on; `environment` shows it this device alone."""

    name: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Devices:
    """`all`, a number of them, or which: `0,1`, as this process sees them. `read` checks the form."""

    text: str

    @classmethod
    def read(cls, text: str) -> Devices:
        """Raises ConfigError for what is none of these."""
        if text != "all" and not re.fullmatch(r"[1-9]\d{0,3}|\d{1,4}(,\d{1,4})+,?|\d{1,4},", text):
            raise ConfigError(f"`devices` = {text}: should be all, a number of GPUs like 2, or which ones, like 0,1")
        places = [part for part in text.split(",") if part]
        if len(set(places)) < len(places):
            raise ConfigError(f"`devices` = {text}: a GPU is named twice")
        return cls(text)

    def found(self) -> list[Device]:
        """The devices. Where there is no NVIDIA GPU, a number of workers share what there is.

        Raises ConfigError for a GPU that is not here.
        """
        gpus = visible_gpus()
        count = int(self.text) if self.text.isdecimal() else None
        if not gpus and count is not None:
            return [Device("this machine")] * count
        if not gpus:
            raise ConfigError(
                f"`devices` = {self.text}: there is no NVIDIA GPU here. A number, like 2, starts so many workers that "
                "share this machine"
            )
        if self.text == "all":
            count = len(gpus)
        places = [int(part) for part in self.text.split(",") if part] if count is None else list(range(count))
        if max(places) >= len(gpus):
            there = f"but {plural(len(gpus), 'GPU')}, counted from 0"
            raise ConfigError(f"`devices` = {self.text}: there is no GPU {max(places)} here, {there}")
        # Numbers are those of nvidia-smi, unless the variable had a meaning before.
        order = {} if VISIBLE in os.environ else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        return [Device(f"GPU {gpus[place]}", {VISIBLE: gpus[place], **order}) for place in places]


def visible_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` calls them."""
    given = os.environ.get(VISIBLE)
    if given is not None:
        names = [name.strip() for name in given.split(",")]
        # As CUDA reads it: what follows an unusable entry does not count.
        usable = next((place for place, name in enumerate(names) if not name or name == "-1"), len(names))
        return names[:usable]
    if shutil.which("nvidia-smi") is None:
        return []
    try:
        listed = subprocess.run(
            ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
            timeout=LIST_TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return []
    return listed.stdout.split()

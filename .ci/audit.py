"""Look for known holes in what the image is made of, and say so where that cannot be done.

It ends with 1 for a known hole and for nothing else: no network, no data and no tool are no reason
to stop a push, but a reason to say that nobody has looked. pip-audit is put into a folder of its
own, outside .venv, and asks the package index about each pinned package.
"""
# ruff: noqa: INP001, T201 - a script of its own, which talks to whoever reads what CI printed

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

TOOL: Final = "pip-audit==2.10.1"
LOCKED: Final = Path(__file__).parent.parent / "requirements/production.txt"
INSTALL_WITHIN: Final = 30
LOOK_WITHIN: Final = 25
"""Seconds; with what else there is to do they stay near a minute."""

OPTIONS: Final = ("--no-deps", "--disable-pip", "--progress-spinner=off", "--format=json")


def audit() -> list[dict[str, Any]]:
    """Return what pip-audit tells of each pinned package.

    Raises:
        OSError, SubprocessError, ValueError, LookupError: it could not be had, or told nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        venv.create(folder, with_pip=True)
        python = str(Path(folder) / "bin/python")
        install = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", TOOL)
        _run(install, INSTALL_WITHIN).check_returncode()
        look = (python, "-m", "pip_audit", "--require-hashes", *OPTIONS, f"--requirement={LOCKED}")
        packages: list[dict[str, Any]] = json.loads(_run(look, LOOK_WITHIN).stdout)["dependencies"]
        return packages


def _run(command: tuple[str, ...], within: float) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, check=False, capture_output=True, timeout=within)  # noqa: S603 - our own words


def main(look: Callable[[], list[dict[str, Any]]] = audit) -> int:
    """Print what is known of the pinned packages; returns 1 if one has a known hole."""
    try:
        packages = look()
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        why = str(error).partition("\n")[0][:200]
        print(f"NOTE: nobody looked for known holes, for pip-audit could not be had: {why}")
        return 0
    holes = [(one, hole) for one in packages for hole in one.get("vulns", ())]
    for one, hole in holes:
        mended = ", ".join(hole["fix_versions"]) or "no version yet"
        print(f"{one['name']} {one['version']} has a known hole, {hole['id']}; mended in {mended}")
    unseen = sorted(one["name"] for one in packages if "skip_reason" in one)
    if unseen:
        print(f"NOTE: nobody could look at {len(unseen)} packages: {', '.join(unseen)}")
    print(f"{len(packages) - len(unseen)} packages looked at, {len(holes)} known holes")
    return 1 if holes else 0


if __name__ == "__main__":
    sys.exit(main())

"""Lints every script as the server gets it: composed, with its includes. `make lint` runs this file.

luacheck does it where it is installed; elsewhere luaparser checks the syntax. Their findings name a line of
the composed text, which `scheduler scripts show NAME` prints with line numbers.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from scheduler import scripts

ROOT = Path(__file__).resolve().parents[2]
COLUMNS = 130


def main() -> int:
    """Exit status: 0 when there is nothing to say against any script, 1 otherwise."""
    composed = {f"{name}.lua": scripts.compose(name) for name in scripts.names()}
    long = check_columns()
    if luacheck := shutil.which("luacheck"):
        return max(long, run_luacheck(luacheck, composed))
    print("luacheck is not installed (Debian: lua-check): only the syntax is checked")
    return max(long, check_syntax(composed))


def check_columns() -> int:
    faults = 0
    for file in sorted(ROOT.glob("lua/**/*.lua")):
        for number, line in enumerate(file.read_text().splitlines(), 1):
            if len(line) > COLUMNS and "unpack(" not in line:
                print(f"{file.relative_to(ROOT)}:{number}: {len(line)} columns, more than {COLUMNS}")
                faults += 1
    return min(1, faults)


def run_luacheck(luacheck: str, composed: dict[str, str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        for file, text in composed.items():
            Path(folder, file).write_text(text)
        command = [luacheck, "-qq", "--formatter", "plain", "--config", str(ROOT / ".luacheckrc"), *composed]
        return min(1, subprocess.run(command, cwd=folder, check=False).returncode)


def check_syntax(composed: dict[str, str]) -> int:
    from luaparser import ast  # noqa: PLC0415 - takes a quarter of a second, and mostly luacheck is there

    faults = 0
    for file, text in composed.items():
        try:
            ast.parse(text)
        except Exception as error:  # noqa: BLE001 - whatever the parser raises, the file did not parse
            print(f"{file}: {error}")
            faults += 1
    print(f"{len(composed)} scripts, {faults} that do not parse")
    return min(1, faults)


if __name__ == "__main__":
    sys.exit(main())

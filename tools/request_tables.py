"""Write the tables of docs/requests.md from the declarations of the fields; `--check` only compares."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from reel_modal.schema import DEGRADATION_CODES
from reel_modal.schema._describe import markdown_table, records
from reel_modal.schema.requests import Request

PAGE = Path(__file__).resolve().parent.parent / "docs/requests.md"
TABLE = re.compile(r"(<!-- fields of (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
CODES = re.compile(r"(<!-- codes of Degradation -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Write or compare the page and return the exit status."""
    kinds = {kind.__name__: kind for kind in (*records(), Request)}

    def table(found: re.Match[str]) -> str:
        kind = kinds[found[2]]
        common = Request if kind is not Request and issubclass(kind, Request) else None
        return f"{found[1]}{markdown_table(kind, without=common)}\n{found[4]}"

    def codes(found: re.Match[str]) -> str:
        rows = "".join(f"| `{code}` | {meaning} |\n" for code, meaning in DEGRADATION_CODES.items())
        return f"{found[1]}| code | meaning |\n|---|---|\n{rows}{found[3]}"

    before = PAGE.read_text(encoding="utf-8")
    after = CODES.sub(codes, TABLE.sub(table, before))
    if "--check" not in sys.argv:
        PAGE.write_text(after, encoding="utf-8")
    elif before != after:
        print("docs/requests.md is out of date: run `make tables`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

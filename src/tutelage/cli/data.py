"""`tutelage data check FILE`: what a file holds, and what is wrong with it."""

from typing import Any

from tutelage.errors import UserError


def main(verb: str, arguments: list[str]) -> dict[str, Any]:
    if len(arguments) < 2 or arguments[0] != "check":
        raise UserError("give an action and a file", where="tutelage data", mend="tutelage data check FILE")
    from tutelage.data.check import check

    found = check(arguments[1])
    if "--json" not in arguments:
        for name, value in found.items():
            print(f"{name}: {value}")
    return found

"""`make torture`: all of them, or those that are named."""

import argparse
import zoneinfo

from torture import figures

LONG = 1_000_000


def main() -> None:
    from torture import fuzz, kill_matrix, redis_faults, sentinel, soak, state_machine

    parts = {
        "fuzz": lambda _: fuzz.main(),
        "redis_faults": lambda _: redis_faults.main(),
        "sentinel": lambda _: sentinel.main(),
        "kill_matrix": lambda _: kill_matrix.main(),
        "state_machine": lambda _: state_machine.main(),
        "soak": lambda given: soak.main(given.number, given.rate),
    }
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(parts)}; all by default")
    parser.add_argument("--number", type=int, default=LONG, help="deliveries of the soak")
    parser.add_argument("--rate", type=float, default=1500.0, help="of them a second")
    given = parser.parse_args()
    if wrong := set(given.parts) - parts.keys():
        parser.error(f"no such part: {', '.join(sorted(wrong))}")
    for name in given.parts or parts:
        figures.say(f"{name} ...")
        parts[name](given)


if __name__ == "__main__":
    zoneinfo.reset_tzpath(())  # as the command line does
    main()

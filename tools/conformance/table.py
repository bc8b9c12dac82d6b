"""table.py INDEX FANFARE [--some]: docs/conformance.md from the suite's reports. Fails unless every case is as it should be."""

import collections
import datetime
import json
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

SECTIONS = {
    "1": "Framing",
    "2": "Pings and pongs",
    "3": "Reserved bits",
    "4": "Opcodes",
    "5": "Fragmentation",
    "6": "UTF-8",
    "7": "Closing",
    "9": "Limits and performance",
    "10": "Automatic fragmentation",
    "12": "Compression, payloads",
    "13": "Compression, parameters",
}
CASES = 517
BEHAVIOURS = ["OK", "NON-STRICT", "FAILED", "INFORMATIONAL", "UNIMPLEMENTED"]

# Cases that the suite only takes note of, and why the RFC leaves them open. Others may not be INFORMATIONAL.
INFORMATIONAL = {
    "7.1.6": "A message of 256 KiB, another one, a close frame and a ping at once. RFC 6455 does not say whether what came before "
    "the close frame is still answered. The gateway echoes both messages, as far as the client takes them, answers the close "
    "with 1000 and ignores the ping.",
    "7.13.1": "A close frame with code 5000, to which RFC 6455 section 7.4.2 gives no meaning. The gateway answers 1002.",
    "7.13.2": "The same with code 65535.",
}


def problem(case, result):
    """What is wrong with a result, if anything."""
    behaviour, close = result["behavior"], result["behaviorClose"]
    if behaviour == "INFORMATIONAL" and case in INFORMATIONAL:
        return None
    if behaviour != "OK":
        return behaviour
    return None if close in ("OK", "INFORMATIONAL") else f"close: {close}"


def table(results):
    yield "| section | cases | " + " | ".join(BEHAVIOURS) + " | closed as expected |"
    yield "| --- |" + " ---: |" * (len(BEHAVIOURS) + 2)
    rows = collections.defaultdict(list)
    for case, result in results.items():
        rows[case.split(".")[0]].append(result)
    for section in sorted(rows, key=int):
        yield row(f"{section} {SECTIONS.get(section, '')}", rows[section])
    yield row("all", results.values())


def row(name, results):
    count = collections.Counter(result["behavior"] for result in results)
    # A behaviour without a column is a failure.
    count["FAILED"] += sum(n for behaviour, n in count.items() if behaviour not in BEHAVIOURS)
    closes = collections.Counter(result["behaviorClose"] for result in results)
    close = str(closes["OK"]) + "".join(f", {n} {name}" for name, n in sorted(closes.items()) if name != "OK")
    return f"| {name} | " + " | ".join(str(n) for n in [len(results), *(count[b] for b in BEHAVIOURS)]) + f" | {close} |"


def page(agents, fanfare):
    gateway = subprocess.run([fanfare, "version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    yield "# Conformance"
    yield ""
    yield "<!-- Written by `make conformance` (tools/conformance/table.py). -->"
    yield ""
    yield "The Autobahn test suite's fuzzing client against `/echo` of one gateway, all its cases, once for each send path."
    yield ""
    yield "```"
    yield "make conformance"
    yield "```"
    yield ""
    yield f"Run on {datetime.datetime.now(datetime.UTC):%Y-%m-%d} with:"
    yield ""
    yield f"- {gateway}"
    core, twisted = version("autobahn"), version("twisted")
    suite = next(line for line in Path(__file__).with_name("requirements.txt").open() if line.startswith("autobahntestsuite=="))
    yield f"- autobahntestsuite {suite.strip().split('==')[1]} on autobahn {core} and twisted {twisted}, Python {platform.python_version()}"
    yield ""
    yield "The suite is published for Python 2 only. `tools/conformance/port.py` brings it to Python 3; it says in full what it changes,"
    yield "and no case's input or expectation is among it. The limits are raised for section 9 (`limits.message_bytes_max` 16 MiB,"
    yield "`fragments_max` 65,537, `outbox_bytes_max` 32 MiB), and `compression.mode` is `on`, so that short messages are compressed"
    yield "too; nothing else that bears on the protocol is set."
    for agent, results in agents.items():
        yield ""
        yield f"## send_path = {agent}"
        yield ""
        yield from table(results)
    yield ""
    yield "Both paths answer a single connection, and so an echo, with the same system call; they differ where one message goes to many."
    if "io_uring" not in agents:
        yield "io_uring was not allowed where this was run."
    yield ""
    yield "## INFORMATIONAL"
    yield ""
    yield "The suite takes note of what these do, because the RFC leaves it open."
    yield ""
    for case, reason in INFORMATIONAL.items():
        yield f"- {case}: {reason}"
    problems = list(all_problems(agents))
    if problems:
        yield ""
        yield "## Not as it should be"
        yield ""
        yield from (f"- {line}" for line in problems)


def all_problems(agents):
    for agent, results in agents.items():
        for case in sorted(results, key=lambda case: [int(part) for part in case.split(".")]):
            if why := problem(case, results[case]):
                yield f"{agent}: case {case}: {why} (close code {results[case]['remoteCloseCode']})"


def main(index, fanfare, *some):
    agents = json.loads(Path(index).read_text())
    print("\n".join(page(agents, fanfare)))
    problems = list(all_problems(agents))
    for agent, results in agents.items():
        if not some and len(results) != CASES:
            problems.append(f"{agent}: {len(results)} cases were run instead of {CASES}")
    if not agents:
        problems.append("nothing was run")
    for line in problems:
        print(f"conformance: {line}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

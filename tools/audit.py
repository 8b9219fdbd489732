"""`python -m tools.audit`: are there known vulnerabilities in what requirements.txt pins? Fails where there are.

Where the database of them can't be reached, it says so, and fails nobody for the network.
"""

import json
import subprocess
import sys

COMMAND = ["pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json", "--desc", "off"]
PATIENCE = 120  # seconds


def main() -> None:
    command = [sys.executable, "-m", *COMMAND, "--requirement", "requirements.txt"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        print(f"NOT AUDITED: the database of vulnerabilities did not answer within {PATIENCE} seconds.")
        return
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except ValueError:
        reason = run.stderr.strip().splitlines()[-1:] or ["no answer"]
        print(f"NOT AUDITED: the database of vulnerabilities can't be reached ({reason[0]}).")
        return
    looked_up = [package for package in packages if "vulns" in package]
    if not looked_up:
        print(f"NOT AUDITED: the database of vulnerabilities knows none of {len(packages)} packages, so it is none.")
        return
    bad = [(package, hole) for package in looked_up for hole in package["vulns"]]
    for package, hole in bad:
        print(f"{package['name']} {package['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions'])}")
    print(f"{len(looked_up)} of {len(packages)} packages were audited: {len(bad)} known vulnerabilities.")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()

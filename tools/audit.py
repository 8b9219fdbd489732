"""`python -m tools.audit`: fails if packages pinned in requirements.txt have known vulnerabilities.

If the vulnerability database can't be reached, it says so and succeeds: the network is not the developer's fault.
"""

import json
import subprocess
import sys

COMMAND = ["pip_audit", "--disable-pip", "--no-deps", "--progress-spinner", "off", "--format", "json", "--desc", "off"]
TIMEOUT_SECONDS = 120


def main() -> None:
    command = [sys.executable, "-m", *COMMAND, "--requirement", "requirements.txt"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"NOT AUDITED: the vulnerability database did not answer within {TIMEOUT_SECONDS} seconds.")
        return
    try:
        packages = json.loads(run.stdout)["dependencies"]
    except ValueError:
        reason = run.stderr.strip().splitlines()[-1:] or ["no answer"]
        print(f"NOT AUDITED: the vulnerability database can't be reached ({reason[0]}).")
        return
    looked_up = [package for package in packages if "vulns" in package]
    if not looked_up:
        print(
            f"NOT AUDITED: the vulnerability database knows none of {len(packages)} packages, so it can't be genuine."
        )
        return
    bad = [(package, known) for package in looked_up for known in package["vulns"]]
    for package, known in bad:
        print(f"{package['name']} {package['version']}: {known['id']}, fixed in {', '.join(known['fix_versions'])}")
    print(f"{len(looked_up)} of {len(packages)} packages were audited: {len(bad)} known vulnerabilities.")
    raise SystemExit(bool(bad))


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# Install the servers that slow tests run for real, from Debian's packages: `make test-all` calls this first. A test whose server
# is not there is skipped and says so; what could be installed and does not work fails.
#   tests/debian_packages.sh [PACKAGE ...]
set -uo pipefail
packages=("$@")
[ $# -gt 0 ] || packages=(iproute2 munge prometheus slurm-client slurmctld slurmd tini)

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${Status}\n' "$package" 2> /dev/null | grep -q '^install ok installed$' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get > /dev/null; then
  echo "not installed: ${missing[*]} (needs root and apt-get); tests that run them are skipped" >&2
  exit 0
fi
# Tests start their own servers, on loopback: what the packages would start now is not.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' > "$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
if ! { apt-get update && apt-get install --yes --no-install-recommends "${missing[@]}"; } > /dev/null; then
  echo "could not be installed: some of ${missing[*]}; tests that run them are skipped" >&2
fi

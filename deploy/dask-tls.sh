#!/usr/bin/env bash
# Make the certificates of Dask: an authority of its own, and one key pair for scheduler, workers and driver.
#   deploy/dask-tls.sh FOLDER [DAYS]
#   kubectl -n sedflow create secret generic sedflow-dask-tls --from-file=FOLDER
# The authority's key is not kept. To renew, run both again (`kubectl ... --dry-run=client -o yaml | kubectl apply -f -`).
set -euo pipefail
umask 077
folder=${1:?FOLDER, where ca.crt, tls.crt and tls.key go}
days=${2:-365}
mkdir -p "$folder"
authority=$(mktemp -d)
trap 'rm -rf "$authority"' EXIT

key=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${key[@]}" -days "$days" -subj "/CN=sedflow Dask authority" \
  -keyout "$authority/ca.key" -out "$folder/ca.crt" 2>/dev/null
openssl req "${key[@]}" -subj "/CN=sedflow Dask" -keyout "$folder/tls.key" -out "$authority/tls.csr" 2>/dev/null
printf 'extendedKeyUsage=serverAuth,clientAuth\n' > "$authority/usage"
openssl x509 -req -in "$authority/tls.csr" -days "$days" -CA "$folder/ca.crt" -CAkey "$authority/ca.key" \
  -CAcreateserial -CAserial "$authority/serial" -extfile "$authority/usage" -out "$folder/tls.crt" 2>/dev/null

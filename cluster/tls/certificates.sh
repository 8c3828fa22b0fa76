#!/usr/bin/env bash
# A private certificate authority for one Dask cluster, and the two certificates that it signs:
# `server` for the scheduler and the workers, `client` for whoever runs lcengine.
#
#   bash certificates.sh FOLDER [DAYS]
#
# Dask asks one thing of a peer: a certificate of this authority. Host names are not compared. So the
# authority must be the cluster's own (never a company's or a public one), and who holds any key
# below it may run code on every worker.
set -euo pipefail

if [[ $# -lt 1 || $# -gt 2 ]]; then
  echo "usage: bash certificates.sh FOLDER [DAYS]" >&2
  exit 2
fi
folder=$1
days=${2:-365}
if ! [[ $days =~ ^[1-9][0-9]{0,4}$ ]]; then
  echo "error: DAYS is '$days'; expected a whole number of days, e.g. 365" >&2
  exit 2
fi
if ! command -v openssl >/dev/null; then
  echo "error: no openssl on the PATH; on Debian and Ubuntu: apt install openssl" >&2
  exit 2
fi
if [[ -e $folder/ca.pem || -e $folder/authority ]]; then
  # New keys under the same names would lock out a running cluster.
  echo "error: $folder already holds an authority; name another folder, or remove it" >&2
  exit 2
fi

# Nobody else reads a key, not even while it is being written.
umask 077
mkdir -p "$folder/authority"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }

# This authority signs certificates, no further authorities.
key "$folder/authority/ca.key"
openssl req -x509 -new -key "$folder/authority/ca.key" -sha256 -days "$days" \
  -subj "/CN=lcengine cluster authority" -out "$folder/ca.pem" \
  -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
  -addext "keyUsage=critical,keyCertSign" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }

# $1 name, $2 what the certificate may be used for
issue() {
  key "$folder/$1.key"
  openssl req -new -key "$folder/$1.key" -subj "/CN=lcengine $1" -out "$work/$1.csr"
  cat >"$work/$1.ext" <<EXTENSIONS
basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage=$2
EXTENSIONS
  openssl x509 -req -in "$work/$1.csr" -CA "$folder/ca.pem" -CAkey "$folder/authority/ca.key" \
    -set_serial "0x$(openssl rand -hex 16)" -sha256 -days "$days" -extfile "$work/$1.ext" \
    -out "$folder/$1.pem" 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
}

# Schedulers and workers listen and connect to each other. A client only connects: with its
# certificate nobody can pose as the scheduler.
issue server serverAuth,clientAuth
issue client clientAuth

cat <<TEXT
$folder/ca.pem                  to every machine
$folder/server.pem, server.key  to the scheduler and the workers
$folder/client.pem, client.key  to who runs lcengine
$folder/authority/ca.key        nowhere: keep it offline, it signs further certificates
All of them are valid for $days days.
TEXT

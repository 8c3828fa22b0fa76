#!/usr/bin/env bash
# SLURM on one machine, for trying slurm.yaml without a computing centre.
#
#   bash slurm-single-node.sh COMMAND...
#
# Starts munged, slurmctld and slurmd on loopback, below a temporary folder, as the calling user;
# runs `COMMAND... --cluster FILE`, where FILE is slurm.yaml with the cores and the memory of this
# machine and fresh certificates; stops the daemons. Nothing is written to /etc. For example:
#
#   bash slurm-single-node.sh lcengine composite catalog.json -c sentinel-2-l2a -o out.zarr
#
# Needs Debian's or Ubuntu's packages slurmctld, slurmd, slurm-client and munge, and dask-jobqueue.
set -euo pipefail

if [[ $# -eq 0 ]]; then
  echo "usage: bash slurm-single-node.sh COMMAND..." >&2
  exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PATH=$PATH:/usr/sbin:/sbin
missing=()
for tool in munged munge slurmctld slurmd sbatch sinfo openssl; do
  command -v "$tool" >/dev/null || missing+=("$tool")
done
if [[ ${#missing[@]} -gt 0 ]]; then
  echo "error: not installed: ${missing[*]}; on Debian and Ubuntu:" \
    "apt install slurmctld slurmd slurm-client munge openssl" >&2
  exit 2
fi

# A short path: the socket's may have 108 characters.
work=$(mktemp -d /tmp/slurm.XXXXXX)
started=()
stop() {
  status=$?
  trap - EXIT
  # The last first: slurmd ends its jobs.
  for ((i = ${#started[@]} - 1; i >= 0; i--)); do
    kill "${started[i]}" 2>/dev/null || true
  done
  wait "${started[@]}" 2>/dev/null || true
  if [[ $status -ne 0 ]]; then
    echo "error: the command ended with $status; the last lines of the logs:" >&2
    tail -n 5 "$work"/*.log "$work"/yaml/logs/* >&2 2>/dev/null || true
  fi
  rm -rf "$work"
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

# until_works WHAT COMMAND...: for at most 30 seconds
until_works() {
  local what=$1 n
  shift
  for ((n = 0; n < 150; n++)); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.2
  done
  echo "error: $what does not answer" >&2
  exit 1
}

# -------------------------------------------------------------------------------- who is who: munge
umask 077
dd if=/dev/urandom of="$work/munge.key" bs=1024 count=1 status=none
# --force: it would refuse a folder below /tmp.
munged --foreground --force --key-file="$work/munge.key" --socket="$work/munge.socket" \
  --pid-file="$work/munged.pid" --seed-file="$work/munged.seed" --log-file="$work/munged.log" \
  2>"$work/munged-start.log" &
started+=($!)
until_works munged munge --socket="$work/munge.socket" --no-input

# --------------------------------------------------------------------------------------------- SLURM
node=$(hostname -s)
cores=$(nproc)
memory=$(($(awk '/^MemAvailable/ {print $2}' /proc/meminfo) * 3 / 4 / 1024)) # MiB
free_port() { # one above $1 that nobody listens on
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}
mkdir -p "$work/state" "$work/spool"
export SLURM_CONF=$work/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=single
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port 16817)
SlurmdPort=$(free_port 16917)
# Loopback only.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
AuthInfo=socket=$work/munge.socket
CredType=cred/munge
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
StateSaveLocation=$work/state
SlurmdSpoolDir=$work/spool
SlurmctldPidFile=$work/slurmctld.pid
SlurmdPidFile=$work/slurmd.pid
SlurmctldLogFile=$work/slurmctld.log
SlurmdLogFile=$work/slurmd.log
# Containers often have no cgroups to give away.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
ReturnToService=2
KillWait=10
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory State=UNKNOWN
PartitionName=all Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
# Beside slurm.conf it is always read. Before 23.02 SLURM knew no `disabled`; version 1 touches
# nothing as long as no other plugin asks it to.
version=$(slurmd -V | cut -d" " -f2)
plugin=disabled
[[ $(printf "%s\n" 23.02 "$version" | sort -V | head -n 1) == 23.02 ]] || plugin=cgroup/v1
echo "CgroupPlugin=$plugin" >"$work/cgroup.conf"
slurmctld -D -i 2>"$work/slurmctld-start.log" &
started+=($!)
slurmd -D -N "$node" 2>"$work/slurmd-start.log" &
started+=($!)
node_is_idle() { [[ $(sinfo --noheader --format=%t) == idle ]]; }
until_works "the node of SLURM" node_is_idle
echo "SLURM $(sinfo --version | cut -d' ' -f2) with $cores cores and $memory MiB" >&2

# ---------------------------------------------------------------------------------------- the command
# One job with half of the machine, so that two fit.
mkdir "$work/yaml"
bash "$here/tls/certificates.sh" "$work/yaml/certificates" 1 >/dev/null
sed -e "s/^  cores: .*/  cores: $(((cores + 1) / 2))/" \
  -e "s/^  memory: .*/  memory: $((memory / 2))MiB/" "$here/slurm.yaml" >"$work/yaml/slurm.yaml"
umask 022 # what the command writes is for others, too
"$@" --cluster "$work/yaml/slurm.yaml"

"""The deployments in `cluster/`: files that lcengine, the classes and the operator accept."""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import re
import shutil
import subprocess
from pathlib import Path

import asyncssh
import clusters
import distributed
import jsonschema
import pytest
import yaml

from lcengine.cluster.start import _factory, _hide_dashboard
from lcengine.cluster.target import parse

KUBERNETES = clusters.DEPLOYMENTS / "kubernetes"
TARGETS = sorted(
    path
    for path in clusters.DEPLOYMENTS.rglob("*.yaml")
    if not re.search("^kind:", path.read_text(), re.MULTILINE)
)
MANIFESTS = sorted(set(clusters.DEPLOYMENTS.rglob("*.yaml")) - set(TARGETS))


@pytest.fixture
def shipped(tmp_path, pem, use, monkeypatch):
    """A copy of `cluster/`, with certificates where its files look for them."""
    root = tmp_path / "cluster"
    shutil.copytree(
        clusters.DEPLOYMENTS, root, ignore=shutil.ignore_patterns("certificates", "logs")
    )
    (root / "certificates").symlink_to(pem)
    use(pem)
    monkeypatch.setenv("LCENGINE_IMAGE", "registry.example/lcengine:0.1.0")
    return root


def test_all_are_seen():
    names = {path.name for path in TARGETS}
    assert names == {
        *("local.yaml", "ssh.yaml", "slurm.yaml", "gpu.yaml"),
        *("kubernetes.yaml", "connect.yaml"),
    }
    assert {path.name for path in MANIFESTS} == {
        *("cluster.yaml", "autoscaler.yaml", "network-policy.yaml"),
    }


@pytest.mark.parametrize("path", TARGETS, ids=lambda path: path.stem)
def test_is_a_target(path, shipped):
    found = parse(shipped / path.relative_to(clusters.DEPLOYMENTS))
    assert bool(found.cluster) != bool(found.address)
    assert "tls://" in found.address or found.cluster


def accepted(deployment):
    """The arguments of a deployment, bound to the signature of its class."""
    return inspect.signature(_factory(deployment)).bind(**deployment.arguments).arguments


def takes(cls, names):
    """Whether the constructor of a class has these parameters, its own or its parents'."""
    known = set()
    for parent in cls.__mro__:
        if "__init__" in vars(parent):
            known |= inspect.signature(parent.__init__).parameters.keys()
    return set(names) <= known, set(names) - known


def test_local(shipped):
    """LocalCluster passes what it does not know on to the workers, so ask for every name."""
    arguments = parse(shipped / "local.yaml").arguments
    assert takes(distributed.LocalCluster, arguments.keys() - {"memory_limit"}) == (True, set())
    assert takes(distributed.Nanny, {"memory_limit"}) == (True, set())
    assert {arguments["host"], arguments["dashboard_address"].partition(":")[0]} == {"127.0.0.1"}


def test_ssh(shipped):
    bound = accepted(parse(shipped / "ssh.yaml"))
    assert len(bound["hosts"]) >= 2
    workers = bound["worker_options"].keys() - {"n_workers"}  # that one is SSHCluster's own
    assert takes(distributed.Nanny, workers) == (True, set())
    assert takes(distributed.Scheduler, bound["scheduler_options"]) == (True, set())
    asyncssh.SSHClientConnectionOptions(**bound["connect_options"])
    assert "known_hosts" not in bound["connect_options"]
    assert parse(shipped / "ssh.yaml").pem


def test_slurm_writes_the_job(shipped):
    """Without SLURM on the machine: the script that `sbatch` would get."""
    deployment = parse(shipped / "slurm.yaml")
    from lcengine.cluster.security import security_of

    factory = _factory(deployment)
    arguments = deployment.arguments | {"scheduler_options": {"host": "127.0.0.1"}}
    _hide_dashboard(arguments, inspect.signature(factory))
    with factory(**arguments, security=security_of(deployment.pem)) as cluster:
        script = cluster.job_script()
        assert cluster.scheduler_address.startswith("tls://")
    lines = script.splitlines()
    assert "#SBATCH --cpus-per-task=4" in lines
    assert "#SBATCH --mem=8G" in lines
    assert "#SBATCH -t 01:00:00" in lines
    assert "export MALLOC_TRIM_THRESHOLD_=67108864" in lines
    worker = lines[-1]
    assert "--nthreads 4 --memory-limit 8.00GiB" in worker
    assert "--death-timeout 60" in worker
    assert "--lifetime 50m" in worker
    assert f"--tls-cert {shipped}/certificates/server.pem" in worker
    assert (shipped / "logs").is_dir()
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


def test_kubernetes(shipped):
    """The resource that KubeCluster would create passes the operator's schema."""
    deployment = parse(shipped / "kubernetes" / "kubernetes.yaml")
    bound = accepted(deployment)
    assert not bound.get("kwargs"), "unknown to KubeCluster"
    from dask_kubernetes.operator import make_cluster_spec

    known = inspect.signature(make_cluster_spec).parameters.keys() - {"name"}
    values = {key: value for key, value in bound.items() if key in known}
    assert values["image"] == "registry.example/lcengine:0.1.0"
    schema("DaskCluster").validate(make_cluster_spec(name="lcengine-1", **values))
    adapt = inspect.signature(_factory(deployment).adapt)
    adapt.bind(None, **deployment.adapt)


# dask-cuda 26.10 and its parent; it needs CUDA, so its signature is written down here.
CUDA_ARGUMENTS = {"threads_per_worker", "memory_limit", "device_memory_limit"}


def test_gpu(shipped):
    """By name only: dask-cuda cannot be installed everywhere, its parent's names can be asked."""
    deployment = parse(shipped / "gpu.yaml")
    assert deployment.cluster == "dask_cuda.LocalCUDACluster"
    threads = deployment.arguments["threads_per_worker"]
    assert deployment.arguments["resources"] == {"GPU": threads}
    names = deployment.arguments.keys() - CUDA_ARGUMENTS - {"resources"}
    assert takes(distributed.LocalCluster, names) == (True, set())
    assert takes(distributed.Nanny, {"resources"}) == (True, set())


# ------------------------------------------------------------------------------------- manifests


@functools.cache
def schema(kind):
    """A validator of a custom resource: the schema that ships with the operator, made strict.

    Kubernetes drops unknown fields of such a schema silently; here they are errors.
    """
    package = Path(importlib.import_module("dask_kubernetes").__file__).parent
    chart = package / "operator" / "deployment" / "helm" / "dask-kubernetes-operator"
    crd = yaml.safe_load((chart / "crds" / f"{kind.lower()}.yaml").read_text())
    assert crd["spec"]["names"]["kind"] == kind
    (version,) = crd["spec"]["versions"]
    found = copy.deepcopy(version["schema"]["openAPIV3Schema"])
    found["properties"] |= {
        "apiVersion": {"const": f"{crd['spec']['group']}/{version['name']}"},
        "kind": {"const": kind},
        "metadata": {"type": "object", "required": ["name"]},
    }
    found["required"] = ["apiVersion", "kind", "metadata", "spec"]
    return jsonschema.Draft202012Validator(strict(found))


def strict(node):
    """Kubernetes' dialect of OpenAPI as JSON schema, without room for unknown fields."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    node = {key: strict(value) for key, value in node.items()}
    if node.pop("x-kubernetes-int-or-string", False):
        node.pop("type", None)
        node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if (
        isinstance(node.get("properties"), dict)
        and node.get("type") == "object"
        and "additionalProperties" not in node
        and not node.get("x-kubernetes-preserve-unknown-fields")
    ):
        node["additionalProperties"] = False
    return node


def manifest(name):
    return yaml.safe_load((KUBERNETES / name).read_text())


@pytest.mark.parametrize("name", ["cluster.yaml", "autoscaler.yaml"])
def test_manifest_is_valid(name):
    found = manifest(name)
    schema(found["kind"]).validate(found)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("kind",), "DaskKluster"),
        (("apiVersion",), "kubernetes.dask.org/v2"),
        (("spec", "worker", "replicas"), "many"),
        (("spec", "worker", "spec", "containers"), {"name": "worker"}),
        (("spec", "worker", "spec", "containers", 0, "imagee"), "lcengine"),
        (("spec", "worker", "spec", "containers", 0, "env"), {"A": "b"}),
        (("spec", "worker", "spec", "containers", 0, "args"), [1]),
        (("spec", "worker", "spec", "volumes", 0, "name"), None),
        (("spec", "scheduler", "service", "ports", 0, "port"), "8786"),
        (("spec", "scheduler", "spec", "containers", 0, "readinessProbe"), True),
        (("spec", "workers"), {}),
        (("spec", "scheduler"), None),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_broken_manifest_is_not(path, value):
    broken = manifest("cluster.yaml")
    at = broken
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        schema("DaskCluster").validate(broken)


def test_a_broken_autoscaler_is_not():
    broken = manifest("autoscaler.yaml")
    broken["spec"]["maximum"] = "fifty"
    with pytest.raises(jsonschema.ValidationError):
        schema("DaskAutoscaler").validate(broken)


class TestCluster:
    """What no schema says, but the operator and the network need."""

    def test_names_fit_together(self):
        cluster, policy = manifest("cluster.yaml"), manifest("network-policy.yaml")
        name, space = (cluster["metadata"][key] for key in ("name", "namespace"))
        assert manifest("autoscaler.yaml")["spec"]["cluster"] == name
        labels = {"dask.org/cluster-name": name}
        assert policy["spec"]["podSelector"]["matchLabels"] == labels
        service = cluster["spec"]["scheduler"]["service"]
        assert service["selector"] == labels | {"dask.org/component": "scheduler"}
        (worker,) = cluster["spec"]["worker"]["spec"]["containers"]
        address = f"tls://{name}-scheduler.{space}.svc:8786"
        assert {"name": "DASK_SCHEDULER_ADDRESS", "value": address} in worker["env"]
        assert yaml.safe_load((KUBERNETES / "connect.yaml").read_text())["address"] == address
        ports = {p["name"] for p in cluster["spec"]["scheduler"]["spec"]["containers"][0]["ports"]}
        assert {port["targetPort"] for port in service["ports"]} == ports

    @pytest.mark.parametrize("role", ["worker", "scheduler"])
    def test_pods_may_do_little(self, role):
        pod = manifest("cluster.yaml")["spec"][role]["spec"]
        (container,) = pod["containers"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["tls"]["secret"]["defaultMode"] == 0o440
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys()

    @pytest.mark.parametrize("role", ["worker", "scheduler"])
    def test_commands_are_those_of_dask(self, role):
        """Every option is one that `dask scheduler` or `dask worker` has."""
        from distributed.cli import dask_scheduler, dask_worker

        (container,) = manifest("cluster.yaml")["spec"][role]["spec"]["containers"]
        dask, command, *options = container["args"]
        assert (dask, command) == ("dask", role)
        module = {"scheduler": dask_scheduler, "worker": dask_worker}[role]
        values = module.main.make_parser(module.main.make_context(role, [])).parse_args(options)[0]
        assert values["tls_cert"] == "/tls/server.pem"
        assert values["protocol"] == "tls"


def test_containerfile_takes_only_what_it_names():
    """No secret and no checkout gets into the image; the last stage is nobody's root."""
    lines = (clusters.DEPLOYMENTS / "Containerfile").read_text().splitlines()
    copied = [
        name
        for line in lines
        if line.startswith("COPY") and "--from" not in line
        for name in line.split()[1:-1]
    ]
    assert copied == ["pyproject.toml", "constraints.txt", "README.md", "LICENSE", "lcengine"]
    assert all((clusters.DEPLOYMENTS.parent / name).exists() for name in copied)
    assert "USER 10001:10001" in lines
    assert any("-c constraints.txt" in line for line in lines)


@pytest.mark.parametrize("script", sorted(clusters.DEPLOYMENTS.rglob("*.sh")), ids=lambda p: p.stem)
def test_scripts_are_bash(script):
    subprocess.run(["bash", "-n", script], check=True)
    assert "set -euo pipefail" in script.read_text()

"""What a target says, and what is refused with a remedy before anything is started."""

from __future__ import annotations

import subprocess
import sys

import pytest
from dask.system import CPU_COUNT

from lcengine.cluster import connect
from lcengine.cluster.target import parse
from lcengine.errors import InputError


def local(text):
    """(workers, threads, memory) of a local target."""
    arguments = parse(text).arguments
    keys = ("n_workers", "threads_per_worker", "memory_limit")
    return tuple(arguments.get(key) for key in keys)


class TestLocal:
    def test_by_default_a_process_for_every_four_cpus(self):
        workers = max(1, CPU_COUNT // 4)
        assert local("local") == local("local:") == (workers, max(1, CPU_COUNT // workers), None)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("local:workers=2,threads=4,memory=8GiB", (2, 4, 8 * 2**30)),
            ("local: threads=3 , workers=1", (1, 3, None)),
            ("local:workers=1000", (1000, 1, None)),
            ("local:memory=2GB,workers=1,threads=1", (1, 1, 2_000_000_000)),
        ],
    )
    def test_as_asked(self, text, expected):
        assert local(text) == expected

    def test_threads_alone_do_not_crowd_the_cpus(self):
        workers, threads, _ = local(f"local:threads={CPU_COUNT}")
        assert (workers, threads) == (1, CPU_COUNT)

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("local:cores=4", r"'cores=4' .*workers=…, threads=…, memory=…"),
            ("local:workers", r"'workers' .*expected"),
            ("local:workers=", r"'workers=' .*expected"),
            ("local:workers=1,workers=2", r"'workers=2' .*given twice"),
            ("local:workers=0", r"workers is '0' .*above 0"),
            ("local:workers=-1", r"workers is '-1' .*above 0"),
            ("local:threads=2.5", r"threads is '2.5' .*above 0"),
            ("local:threads=１", r"threads is '１' .*above 0"),
            ("local:memory=8", r"memory is '8' .*with a unit, e\.g\. 8GiB"),
            ("local:memory=-8GiB", r"memory is '-8GiB'"),
            ("local:memory=much", r"memory is 'much'"),
            ("local:memory=nan", r"memory is 'nan'"),
        ],
    )
    def test_slips_are_named(self, text, named):
        with pytest.raises(InputError, match=named):
            parse(text)


class TestAddresses:
    @pytest.mark.parametrize("text", ["tcp://127.0.0.1:8786", "tls://node1:8786", "tcp://[::1]:1"])
    def test_of_a_scheduler(self, text):
        assert parse(text).address == text

    @pytest.mark.parametrize(
        "text",
        [
            "tcp://node1",
            "tcp://:8786",
            "tcp://node1:99999",
            "tcp://node1:port",
            "http://node1:8786",
            "tls://user:secret@node1:8786",
            "tls://node1:8786/path",
        ],
    )
    def test_others_are_refused(self, text):
        with pytest.raises(InputError, match=r"expected tcp://host:port or tls://host:port"):
            parse(text)

    def test_certificates_with_a_plain_address(self, pem, tmp_path):
        file = tmp_path / "cluster.yaml"
        security = f"{{ca: {pem}/ca.pem, cert: {pem}/client.pem, key: {pem}/client.key}}"
        file.write_text(f"address: tcp://127.0.0.1:1\nsecurity: {security}\n")
        with pytest.raises(InputError, match="not encrypted; use tls://"), connect(file):
            pass

    def test_nothing_that_is_known(self):
        with pytest.raises(InputError, match=r"'slurm' is not known .*`local`, .*YAML file"):
            parse("slurm")


@pytest.fixture
def write(tmp_path):
    """Write a cluster file; its path."""

    def put(text):
        file = tmp_path / "cluster.yaml"
        file.write_text(text)
        return file

    return put


class TestFile:
    def test_everything_it_may_say(self, write, pem):
        found = parse(
            write(
                "cluster: dask_jobqueue.SLURMCluster\narguments: {cores: 4, queue: normal}\n"
                "adapt: {minimum: 0, maximum: 100}\nwait: 4h\n"
                f"security: {{ca: {pem}/ca.pem, cert: {pem}/server.pem, key: {pem}/server.key}}\n"
            )
        )
        assert found.cluster == "dask_jobqueue.SLURMCluster"
        assert found.arguments == {"cores": 4, "queue": "normal"}
        assert found.adapt == {"minimum": 0, "maximum": 100}
        assert found.wait == 4 * 3600
        assert found.scale is None
        assert found.pem.key == f"{pem}/server.key"

    def test_as_text_or_path(self, write):
        file = write("address: tls://node1:8786\n")
        assert parse(file) == parse(str(file))
        assert parse(file).address == "tls://node1:8786"

    def test_variables_and_neighbours(self, write, monkeypatch, tmp_path):
        monkeypatch.setenv("NODE", "node7: {not: yaml}")
        monkeypatch.setenv("HOME", "/elsewhere")
        file = write(
            "cluster: distributed.SSHCluster\nscale: 4\narguments:\n"
            "  hosts: ['${NODE}', 'a${NODE}b', '$${NODE}', $HOME, 7]\n"
            "  connect_options: {client_keys: [./keys/id], known_hosts: ../hosts}\n"
        )
        found = parse(file)
        node = "node7: {not: yaml}"
        assert found.scale == 4
        assert found.arguments["hosts"] == [node, f"a{node}b", "${NODE}", "$HOME", 7]
        assert found.arguments["connect_options"] == {
            "client_keys": [str(tmp_path / "keys/id")],
            "known_hosts": str(tmp_path / "../hosts"),
        }

    def test_neighbours_are_those_of_the_file_wherever_one_stands(
        self, write, monkeypatch, tmp_path, pem
    ):
        write(
            "address: tls://node1:1\nsecurity: {ca: pem/ca.pem, cert: pem/client.pem, "
            "key: pem/client.key}\n"
        )
        (tmp_path / "pem").symlink_to(pem)
        monkeypatch.chdir(tmp_path.parent)
        found = parse(f"{tmp_path.name}/cluster.yaml")
        assert found.pem.cert == str(tmp_path / "pem" / "client.pem")

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ("", "no mapping; expected cluster, arguments"),
            ("- local", "no mapping"),
            ("cluster: [", r"cannot be read as YAML: .*line 1"),
            ("cluster: a.B\narguments: &a {x: *a}", "contains itself through an alias"),
            ("scale: 4", "either `cluster` .* or `address`"),
            ("cluster: a.B\naddress: tls://a:1", "either `cluster` .* or `address`"),
            ("cluster: a.B\nworkers: 4\ncores: 2", "unknown in .*: workers, cores; expected"),
            ("address: tls://a:1\nscale: 4", "scale cannot go with `address`"),
            ("cluster: a.B\nscale: 4\nadapt: {maximum: 4}", "scale cannot go with `adapt`"),
            ("cluster: a.B\nscale: 0", "scale is 0 .*above 0"),
            ("cluster: a.B\nscale: many", "scale is 'many' .*above 0"),
            ("cluster: a.B\nscale: true", "scale is True .*above 0"),
            ("cluster: a.B\narguments: [4]", "arguments is a list; expected a mapping"),
            ("cluster: a.B\nadapt: 4", "adapt is a int; expected a mapping"),
            ("cluster: a.B\nadapt: {1: 4}", "adapt is a dict; expected a mapping of names"),
            ("cluster: a.B\nadapt: {max: 4}", "unknown in .*: adapt: max; expected minimum, "),
            ("cluster: a.B\nwait: soon", "wait is 'soon' .*30m"),
            ("cluster: a.B\nwait: -1s", "wait is '-1s' .*30m"),
            ("cluster: a.B\nwait: [1]", r"wait is \[1\] .*30m"),
            ("address: node1:8786", "'node1:8786' is no address .*in .*cluster.yaml"),
            ("cluster: '${NO_SUCH_VARIABLE}'", r"\$\{NO_SUCH_VARIABLE\}, which is not in the"),
            ("cluster: a.B\nsecurity: {ca: x}", "security holds ca; expected .* ca, cert and key"),
            ("cluster: a.B\nsecurity: {}", "security holds nothing; expected"),
            ("cluster: a.B\nsecurity: {ca: x, cert: y, pass: z}", "security holds ca, cert, pass"),
            ("cluster: a.B\nsecurity: {ca: x, cert: y}", "No such file or directory: .*/x; "),
        ],
    )
    def test_slips_are_named(self, write, text, named):
        with pytest.raises(InputError, match=f"(?s){named}"):
            parse(write(text))

    @pytest.mark.parametrize("text", ['{password: "hunter2}', "[hunter2]"])
    def test_what_a_file_holds_is_not_repeated(self, write, text):
        """FAULTS 44."""
        with pytest.raises(InputError) as refusal:
            parse(write(f"cluster: a.B\narguments: {text}"))
        assert "hunter2" not in str(refusal.value)

    def test_a_file_that_is_no_text(self, tmp_path):
        file = tmp_path / "cluster.yaml"
        file.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(InputError, match="cannot be read as YAML"):
            parse(file)

    def test_no_objects_are_made_of_yaml_tags(self, write, tmp_path):
        mark = tmp_path / "mark"
        with pytest.raises(InputError, match="cannot be read as YAML"):
            parse(write(f"cluster: !!python/object/apply:os.mkdir ['{mark}']"))
        assert not mark.exists()


class TestClass:
    """A file names a class; what is none, is missing or is called wrongly is said so."""

    @pytest.mark.parametrize(
        ("name", "named"),
        [
            ("LocalCluster", "expected e.g. dask_jobqueue.SLURMCluster"),
            ("no_such_module.Cluster", "pip install no_such_module"),
            ("dask_cuda.LocalCUDACluster", "pip install dask-cuda"),
            ("dask_gateway.GatewayCluster", "pip install dask-gateway"),
            ("coiled.Cluster", "pip install coiled"),
            ("distributed.NoSuchCluster", "is no Dask cluster class"),
            ("distributed.Client", "is no Dask cluster class"),
            ("distributed.__name__", "is no Dask cluster class"),
            ("os.system", "is no Dask cluster class"),
            ("subprocess.check_output", "is no Dask cluster class"),
        ],
    )
    def test_other_things_are_refused(self, write, name, named):
        file = write(f"cluster: {name}\narguments: {{args: 'true'}}\n")
        with pytest.raises(InputError, match=named), connect(file):
            pass

    @pytest.mark.parametrize(
        ("module", "name", "package"),
        [
            ("asyncssh", "distributed.SSHCluster", "asyncssh"),
            ("dask_jobqueue", "dask_jobqueue.SLURMCluster", "dask-jobqueue"),
            ("dask_kubernetes", "dask_kubernetes.operator.KubeCluster", "dask-kubernetes"),
        ],
    )
    def test_the_missing_package_is_named(self, write, monkeypatch, module, name, package):
        for loaded in [m for m in sys.modules if m.partition(".")[0] == module]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
        with pytest.raises(InputError, match=f"pip install {package}$"):  # noqa: SIM117
            with connect(write(f"cluster: {name}\n")):
                pass

    def test_an_argument_that_the_class_does_not_take(self, write):
        file = write("cluster: dask_kubernetes.operator.KubeCluster\nadapt: {maximum: 1}\n")
        file.write_text("cluster: distributed.SSHCluster\narguments: {0: 1}\n")
        with pytest.raises(InputError, match="arguments is"), connect(file):
            pass
        file.write_text("cluster: distributed.SpecCluster\narguments: {hosts: [a]}\n")
        with pytest.raises(InputError, match=r"SpecCluster: .*'hosts'"), connect(file):
            pass


def test_importing_it_does_not_load_distributed():
    code = (
        "import sys, lcengine.cluster; "
        "from lcengine.cluster.target import parse; parse('tcp://127.0.0.1:1'); "
        "print(sorted({'dask', 'distributed'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

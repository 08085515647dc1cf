"""Bad days of object storage: each fault passes, or ends in one clear error and a store from which the next run goes on."""

import fault_proxy
import numpy as np
import obstore
import pytest
import small
import tiny
from fault_proxy import Fault, FaultProxy
from forked import sedflow
from icechunk import IcechunkError

import jobs.infer
from jobs.ingest.job import ingest
from sedflow_dist.photometry import surveys
from storage_schemas import open_catalog, photometry
from storage_schemas.backend.faults import explain
from storage_schemas.catalog import releases
from storage_schemas.catalog import schema as catalog

N_ROWS = 130


@pytest.fixture(scope="module")
def proxy(s3_server):
    proxy = FaultProxy(s3_server)
    yield proxy
    proxy.close()


@pytest.fixture
def root(proxy, request):
    with fault_proxy.place(proxy, request.node.name, tries=5, timeout=2) as place:
        yield place


@pytest.fixture
def run(root, filled_run):
    return filled_run(root, N_ROWS)


@pytest.fixture(scope="module")
def undisturbed(filled_run, tmp_path_factory):
    """The catalog of a run without faults, in a local folder."""
    run = filled_run(tiny.location(tmp_path_factory.mktemp("undisturbed")), N_ROWS)
    run.infer()
    return run.contents()


@pytest.fixture(scope="module")
def ingested(source, tmp_path_factory):
    store = ingest(source, surveys.get("sdss"), tiny.location(tmp_path_factory.mktemp("ingested")), 100)
    return rows_of(store)


def rows_of(store):
    found = {name: np.asarray(values[:]) for name, values in store.group.arrays()}
    return {name: values.tolist() if values.dtype.kind == "T" else values.tobytes() for name, values in found.items()}


#: Faults that pass.
PASSING = {
    "error": Fault("error", rate=0.15), "slow-down": Fault("slow down", rate=0.15), "reset": Fault("reset", rate=0.15),
    "lost": Fault("lost", rate=0.15), "hang": Fault("hang", times=2, after=9),
    "slow": Fault("slow", times=3, after=9, seconds=1),
    "truncated": Fault("truncated", method="GET", times=4, after=20), "lost-put": Fault("lost", method="PUT", rate=0.3),
}  # fmt: skip
#: Two of them are in every run of the tests.
NAMES = [n if n in ("slow-down", "truncated") else pytest.param(n, marks=pytest.mark.slow) for n in PASSING]


def fresh(fault):
    """The same once more, which strikes no request as often as it is tried: it has to pass."""
    settings = {name: value for name, value in vars(fault).items() if name not in ("_lock", "_rows", "seen", "struck")}
    return Fault(**settings | {"in_a_row": 3})


@pytest.mark.parametrize("name", NAMES)
def test_ingest_survives_faults_that_pass(proxy, root, source, ingested, name):
    proxy.faults = [fault := fresh(PASSING[name])]
    store = ingest(source, surveys.get("sdss"), root / "photometry", 100)
    assert fault.struck
    proxy.faults = []
    assert rows_of(store) == ingested


@pytest.mark.parametrize("name", NAMES)
def test_infer_survives_faults_that_pass(proxy, run, undisturbed, monkeypatch, name):
    monkeypatch.setattr(jobs.infer, "_PAUSES", (0.1,) * 6)
    proxy.faults = [fault := fresh(PASSING[name])]
    run.infer()
    assert fault.struck
    proxy.faults = []
    small.assert_same(run.contents(), undisturbed)
    assert catalog.repository(run.catalog).list_branches() == {"main"}


@pytest.mark.parametrize("kind", ["reset", "lost"])
def test_a_deletion_whose_connection_broke_is_repeated(proxy, root, kind):
    for name in ("a", "b"):
        root.put(name, b"1")
    proxy.faults = [fault := Fault(kind, method="POST|DELETE", times=2)]
    root.remove()
    assert fault.struck == 2
    assert not list(root.list())


LASTING = {
    "expired": "the credentials for S3 have expired", "no bucket": "the bucket does not exist", "full": "storage is full",
}  # fmt: skip
KINDS = ["expired", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("no bucket", "full"))]


@pytest.mark.parametrize("kind", KINDS)
def test_infer_ends_in_a_clear_error_and_goes_on_afterwards(proxy, run, undisturbed, monkeypatch, kind):
    """The fault begins in the midst of the work, after something was committed."""
    monkeypatch.setattr(jobs.infer, "_PAUSES", ())
    commit = releases.commit

    def commit_and_break(*arguments):
        commit(*arguments)
        proxy.faults = [Fault(kind)]

    monkeypatch.setattr(releases, "commit", commit_and_break)
    with pytest.raises((IcechunkError, obstore.exceptions.BaseError, OSError)) as caught:
        run.infer()
    assert LASTING[kind] in explain(caught.value)
    assert len(explain(caught.value)) < 600
    monkeypatch.undo()
    proxy.faults = []
    with pytest.raises(ValueError, match="no release yet"):
        open_catalog(run.catalog)
    assert run.infer()["shards"] == 5  # of 7
    small.assert_same(run.contents(), undisturbed)


@pytest.mark.parametrize("kind", KINDS)
def test_ingest_ends_in_a_clear_error_and_goes_on_afterwards(proxy, root, source, ingested, kind):
    proxy.faults = [Fault(kind, after=40)]
    with pytest.raises((obstore.exceptions.BaseError, OSError)) as caught:
        ingest(source, surveys.get("sdss"), root / "photometry", 100)
    assert LASTING[kind] in explain(caught.value)
    proxy.faults = []
    store = ingest(source, surveys.get("sdss"), root / "photometry", 100)
    assert rows_of(store) == ingested


def test_the_command_line_says_it_in_one_message(proxy, root, source):
    proxy.faults = [Fault("expired")]
    done = sedflow("ingest", source, "--out", f"{root}/photometry", AWS_ENDPOINT_URL=proxy.url)
    assert done.returncode == 1
    assert "sedflow: the credentials for S3 have expired; renew them and run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_full_disk(source, tmp_path):
    """What the limit of a file's size brings about is what a full disk does: a write fails half-way."""
    command = ("ingest", source, "--out", tmp_path / "photometry", "--rows-per-chunk", 250)
    done = sedflow(*command, limits={"RLIMIT_FSIZE": (4000, 4000)})
    assert done.returncode == 1
    assert "sedflow: " in done.stderr
    assert "Traceback" not in done.stderr
    assert photometry.open(tiny.location(tmp_path / "photometry")).missing() == [0, 1]
    assert sedflow(*command).returncode == 0
    store = photometry.open(tiny.location(tmp_path / "photometry"))
    assert store.missing() == [] == list(store.damaged())


def test_a_server_that_ignores_conditions_is_refused(proxy, run):
    proxy.faults = [Fault("ignore conditions")]
    with pytest.raises(RuntimeError, match="ignores If-None-Match: two runs at once could lose commits"):
        run.infer()
    proxy.faults = []
    assert not [name for name in run.catalog.list() if "probe" in name]


def test_a_worker_is_told_the_endpoint(proxy, root):
    """Workers' environments need not name it."""
    import pickle

    place = pickle.loads(pickle.dumps(root / "x"))
    assert (place.endpoint, place.region, place.tries, place.timeout) == (proxy.url, "us-east-1", 5, 2)


def test_credentials_that_change_while_a_run_works_are_followed(proxy, run, undisturbed, tmp_path, monkeypatch):
    """They stand in AWS's file; the old key expires after the first commit, when the new one is there."""
    from distributed import LocalCluster

    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = OLD\naws_secret_access_key = secret\n")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setattr(jobs.infer, "_PAUSES", (6.0, 6.0))
    monkeypatch.setattr("storage_schemas.backend.credentials._last", None)
    commit = releases.commit

    def commit_and_expire(*arguments):
        commit(*arguments)
        file.write_text(file.read_text().replace("OLD", "NEW"))
        proxy.faults = [expired]

    expired = Fault("expired", key="OLD")
    monkeypatch.setattr(releases, "commit", commit_and_expire)
    with LocalCluster(n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        small.Small(run.root, run.model, cluster.scheduler_address, run.bands).infer()
    assert expired.struck
    small.assert_same(run.contents(), undisturbed)
    monkeypatch.setattr("storage_schemas.backend.credentials._last", None)


def test_without_credentials_the_error_says_where_they_may_stand(proxy, root, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr("storage_schemas.backend.credentials._last", None)
    with pytest.raises(Exception, match="no credentials for S3: set AWS_ACCESS_KEY_ID"):
        root.put("x", b"1")
    with pytest.raises(Exception, match="no credentials for S3: set AWS_ACCESS_KEY_ID"):
        catalog.repository(root / "x", create=True)

"""Several hosts from one launcher. The remote shell here is a script that starts the command locally."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from schemas.errors import JobError, UsageError
from tests.trainer.launching.making import start
from tests.trainer.launching.test_supervisor import config, gone, log, until
from trainer.launching.environment import interface_addresses, listen
from trainer.launching.hosts import Host
from trainer.launching.job import Layout, launch
from trainer.launching.remote import Remotes, shell_command

HOSTS = (Host("a", 0, 2), Host("b", 2, 1))
REPORT = """
import json, os, sys, time
rank = os.environ["RANK"]
names = ("WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "AT")
found = {name: os.environ.get(name) for name in names}
found["settings"], found["folder"] = len(sys.stdin.read()), os.getcwd()
open(sys.argv[1] + "/" + rank, "w").write(json.dumps(found))
print("hello of", rank)
"""


def shell(folder: Path, *cases: str) -> str:
    """A remote shell: `SHELL HOST COMMAND...`, with lines for single hosts."""
    path = folder / "shell"
    lines = ['host=$1; shift; case "$host" in', *cases, "esac", 'AT=$host exec "$@"']
    path.write_text("#!/bin/sh\n" + "\n".join(lines) + "\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def launched(
    folder: Path, script: str, rsh: str, hosts: tuple[Host, ...] = HOSTS, port: int | None = None
) -> int:
    (folder / "rank.py").write_text(textwrap.dedent(script))
    command = (sys.executable, str(folder / "rank.py"), str(folder))
    return launch(config(folder), Layout(hosts, rsh, port=port), 0, command)


def test_ranks_are_spread_over_hosts(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert launched(tmp_path, REPORT, shell(tmp_path)) == 0
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(3)]
    assert [f["AT"] for f in found] == ["a", "a", "b"]
    assert [f["LOCAL_RANK"] for f in found] == ["0", "1", "0"]
    assert [f["LOCAL_WORLD_SIZE"] for f in found] == ["2", "2", "1"]
    assert {f["WORLD_SIZE"] for f in found} == {"3"}
    assert len({f["MASTER_PORT"] for f in found}) == 1
    assert {f["MASTER_ADDR"] for f in found} <= set(interface_addresses().values())
    assert {f["folder"] for f in found} == {os.getcwd()}
    assert {f["settings"] for f in found} == {len(config(tmp_path).model_dump_json())}
    shown = capfd.readouterr().err
    assert "3 ranks (a 2, b 1)" in shown
    assert "hello of 0\n" in shown and "hello of 2" not in shown
    assert "hello of 2\n" in log(tmp_path, 2)
    assert not list((tmp_path / "logs").glob(".launch-*")), "what proved the folder shared is gone"


def test_output_of_any_bytes_passes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rank 0's output shares a stream with answers, each behind a record separator."""
    script = 'import sys; sys.stdout.write("x" * 200_000 + "\\r50%\\rdone"); sys.stdout.flush()'
    assert launched(tmp_path, script, shell(tmp_path)) == 0
    assert "x" * 200_000 + "\r50%\rdone" in capfd.readouterr().err


def test_a_killed_rank_ends_all_hosts(tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(JobError) as caught:
        launched(
            tmp_path,
            """
            import os, pathlib, signal, sys, time
            folder = pathlib.Path(sys.argv[1])
            (folder / ("pid-" + os.environ["RANK"])).write_text(str(os.getpid()))
            while len(list(folder.glob("pid-*"))) < 3:
                time.sleep(0.01)
            if os.environ["RANK"] == "2":
                os.kill(os.getpid(), signal.SIGKILL)
            if os.environ["RANK"] == "0":
                os._exit(7)
            time.sleep(60)
            """,
            shell(tmp_path),
        )
    assert time.monotonic() - begun < 10
    assert str(caught.value).startswith("rank 2 on host b was killed by SIGKILL")
    assert "rank-0002.log" in str(caught.value)
    pids = [int((tmp_path / f"pid-{rank}").read_text()) for rank in range(3)]
    until(lambda: all(gone(pid) for pid in pids))


SLEEP = """
import os, sys, time
from trainer.launching.rank import PARENT, die_with
die_with(int(os.environ[PARENT]))
open(sys.argv[1] + "/pid-" + os.environ["RANK"], "w").write(str(os.getpid()))
time.sleep(60)
"""


def ready(folder: Path, ranks: int) -> bool:
    found = [folder / f"pid-{rank}" for rank in range(ranks)]
    return all(path.exists() and path.read_text() for path in found)


def test_a_lost_host_ends_the_others(tmp_path: Path) -> None:
    """Its agent is killed, as when the machine goes: no word of a rank comes from it."""
    rsh = shell(tmp_path, f'b) echo $$ > "{tmp_path}/agent";;')
    script = SLEEP + "\n"
    killer = start(
        [
            *(sys.executable, "-c"),
            f"import os, time\nfrom pathlib import Path\nfolder = Path({str(tmp_path)!r})\n"
            "while not all((folder / f'pid-{r}').exists() for r in range(3)): time.sleep(0.05)\n"
            "os.kill(int((folder / 'agent').read_text()), 9)",
        ]
    )
    with pytest.raises(JobError, match=r"host b was lost: `.*shell b .*` ended with exit code -9"):
        launched(tmp_path, script, rsh)
    assert killer.wait() == 0
    until(lambda: all(gone(int((tmp_path / f"pid-{r}").read_text())) for r in range(3)))


def test_ranks_of_other_hosts_end_with_the_launcher(tmp_path: Path) -> None:
    (tmp_path / "rank.py").write_text(SLEEP)
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.trainer.launching.test_remote import *\n"
        f"folder = Path({str(tmp_path)!r})\n"
        f"launched(folder, SLEEP, {shell(tmp_path)!r})"
    )
    launcher = start([sys.executable, "-c", code])
    try:
        until(lambda: ready(tmp_path, 3), 30)
    finally:
        launcher.send_signal(signal.SIGKILL)
    launcher.communicate()
    until(lambda: all(gone(int((tmp_path / f"pid-{r}").read_text())) for r in range(3)), 15)


def test_sigterm_reaches_the_ranks_of_all_hosts(tmp_path: Path) -> None:
    script = """
        import os, signal, sys, time
        def note(number, frame):
            print("got", number, flush=True)
            sys.exit(143)
        signal.signal(signal.SIGTERM, note)
        open(sys.argv[1] + "/pid-" + os.environ["RANK"], "w").write("x")
        time.sleep(60)
    """
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from tests.trainer.launching.test_remote import *\n"
        f"sys.exit(launched(Path({str(tmp_path)!r}), {script!r}, {shell(tmp_path)!r}))"
    )
    launcher = start([sys.executable, "-c", code])
    until(lambda: ready(tmp_path, 3), 30)
    launcher.send_signal(signal.SIGTERM)
    said, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 143, said
    assert "stopped by SIGTERM; the same command continues" in said
    assert all(f"got {signal.SIGTERM.value}" in log(tmp_path, rank) for rank in range(3))


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            "b) echo 'ssh: Could not resolve hostname b' >&2; exit 255;;",
            r"host b could not be used: `.*` ended with exit code 255: ssh: Could not resolve host",
        ),
        (
            f'b) exec "{sys.executable}" -c "import sys; sys.exit(\\"No module named trainer\\")";;',
            r"host b could not be used: .*No module named trainer; check the hostfile",
        ),
    ],
)
def test_a_host_that_cannot_be_used_is_named(tmp_path: Path, case: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        launched(tmp_path, REPORT, shell(tmp_path, case))
    assert not (tmp_path / "0").exists(), "no rank was started"


def test_a_host_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.launching.remote.START_SECONDS", 1.0)
    monkeypatch.setattr("trainer.launching.remote._END_SECONDS", 1.0)
    with pytest.raises(UsageError, match=r"host b: no answer through `.*shell` for 1 s"):
        launched(tmp_path, REPORT, shell(tmp_path, "b) exec sleep 60;;"))


def test_a_run_directory_that_is_not_shared(tmp_path: Path) -> None:
    probe = ["unshare", "--mount", "--map-root-user", "true"]
    if subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("unshare: mount namespaces are not allowed here")
    # The launcher makes the folder too, perhaps later.
    hidden = f'mkdir -p {tmp_path}/logs && mount -t tmpfs none {tmp_path}/logs && exec "$@"'
    case = f"b) exec unshare --mount --map-root-user sh -c '{hidden}' sh \"$@\";;"
    with pytest.raises(UsageError, match=r"host b does not see output=.*that all hosts share"):
        launched(tmp_path, REPORT, shell(tmp_path, case))


def test_a_port_in_use_on_the_first_host(tmp_path: Path) -> None:
    with listen(None) as sock:
        port = sock.getsockname()[1]
        message = rf"host a: port {port} of .*: Address already in use.*--port"
        with pytest.raises(UsageError, match=message):
            launched(tmp_path, REPORT, shell(tmp_path), port=port)


def test_a_first_host_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Host b is asked for another port than the one that host a listens on."""
    with listen(None) as sock:
        closed = sock.getsockname()[1]
    answers = Remotes._answers

    def elsewhere(self: Remotes, remotes: object) -> object:
        found = answers(self, remotes)  # type: ignore[arg-type]
        return [{**f, "port": closed} if "port" in f else f for f in found]

    monkeypatch.setattr(Remotes, "_answers", elsewhere)
    message = rf"host b cannot connect to a, port {closed}, at .*: open the port"
    with pytest.raises(UsageError, match=message):
        launched(tmp_path, REPORT, shell(tmp_path))


def test_hosts_that_are_started_one_by_one(tmp_path: Path) -> None:
    """As pods of a job are: each by its own command, with its index and the first one's name."""
    (tmp_path / "rank.py").write_text(REPORT)
    with listen(None) as sock:
        port = sock.getsockname()[1]
    code = (
        "import sys\nfrom tests.trainer.launching.test_supervisor import config\n"
        "from pathlib import Path\n"
        "from trainer.launching.job import launch, one_of_several\n"
        f"layout = one_of_several(4, 2, int(sys.argv[1]), 'localhost:{port}')\n"
        f"folder = {str(tmp_path)!r}\n"
        "command = (sys.executable, folder + '/rank.py', folder)\n"
        "sys.exit(launch(config(Path(folder)), layout, 0, command))"
    )
    hosts = [start([sys.executable, "-c", code, str(index)]) for index in (0, 1)]
    said = [host.communicate(timeout=60)[0] for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    found = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(4)]
    assert [f["LOCAL_RANK"] for f in found] == ["0", "1", "0", "1"]
    assert {(f["WORLD_SIZE"], f["MASTER_ADDR"]) for f in found} == {("4", "127.0.0.1")}
    assert {f["MASTER_PORT"] for f in found} == {str(port)}
    assert "hello of 0" in said[0] and "hello" not in said[1]


def test_where_a_remote_shell_takes_the_host() -> None:
    assert shell_command("ssh -p 22", "h", ["x"]) == ["ssh", "-p", "22", "h", "x"]
    assert shell_command("srun --nodelist={host}", "h", ["x"]) == ["srun", "--nodelist=h", "x"]
    with pytest.raises(UsageError, match="--rsh is empty"):
        shell_command(" ", "h", [])
    with pytest.raises(UsageError, match="No closing quotation"):
        shell_command("ssh '", "h", [])


def test_a_remote_shell_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no-such-shell: No such file"):
        launched(tmp_path, REPORT, "no-such-shell")

"""Ranks of one host: environment, logs, failures, signals. Ranks are small scripts here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.errors import JobError, UsageError
from tests.trainer.launching.making import start
from trainer.config import RunConfig
from trainer.engine import signals
from trainer.launching import supervisor
from trainer.launching.environment import cores, listen
from trainer.launching.job import Layout, launch, local_layout
from trainer.launching.supervisor import last_line

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def config(output: Path) -> RunConfig:
    parts = {"model": {}, "data": {}, "objective": {}}
    return RunConfig.model_validate(
        {"recipe": "x", "output": str(output), **parts, "length": {"steps": 1}}
    )


Run = Callable[..., int]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Launch ranks that are a script; its lines may use os, sys, time, signal, json and RANK."""

    def launched(script: str, layout: Layout | int = 2, restarts: int = 0) -> int:
        head = "import json, os, signal, sys, time\nRANK = int(os.environ['RANK'])\n"
        (tmp_path / "rank.py").write_text(head + textwrap.dedent(script))
        if isinstance(layout, int):
            layout = local_layout(layout, None)
        command = (sys.executable, str(tmp_path / "rank.py"))
        return launch(config(tmp_path), layout, restarts, command)

    return launched


def log(folder: Path, rank: int) -> str:
    return (folder / "logs" / f"rank-{rank:04d}.log").read_text()


def gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_ranks_find_what_torchrun_gives_them(run: Run, tmp_path: Path) -> None:
    """The same variables, with the same values but the port, as from `torchrun --standalone`."""
    script = f"""
        found = {{name: os.environ[name] for name in {NAMES}}}
        found["settings"] = len(sys.stdin.read()) if "TORCHELASTIC_RUN_ID" not in os.environ else 0
        open(sys.argv[1] if sys.argv[1:] else "{tmp_path}/" + str(RANK), "w").write(json.dumps(found))
    """
    assert run(script) == 0
    ours = [json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1)]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, tmp_path / "rank.py"], check=True, capture_output=True)
    theirs = [json.loads((tmp_path / str(rank)).read_text()) for rank in (0, 1)]
    same = NAMES[:4]
    assert [[r[n] for n in same] for r in ours] == [[r[n] for n in same] for r in theirs]
    assert {r["MASTER_ADDR"] for r in ours} == {"127.0.0.1"}
    assert len({r["MASTER_PORT"] for r in ours}) == 1
    assert all(r["settings"] == len(config(tmp_path).model_dump_json()) for r in ours)


def test_threads_and_interface_unless_the_user_has_said(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "print(os.environ['OMP_NUM_THREADS'], os.environ['GLOO_SOCKET_IFNAME'])"
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    run(script)
    assert log(tmp_path, 1).splitlines()[-1] == f"{max(1, cores() // 2)} lo"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth7")
    run(script)
    assert log(tmp_path, 1).splitlines()[-1] == "7 eth7"


def test_a_containers_quota_counts(tmp_path: Path) -> None:
    everything = len(os.sched_getaffinity(0))
    for text, expected in (("100000 100000", 1), ("50000 100000", 1), ("max 100000", everything)):
        (tmp_path / "cpu.max").write_text(text + "\n")
        assert cores(tmp_path / "cpu.max") == expected
    assert cores(tmp_path / "none") == everything


def test_rank_0_is_shown_and_all_are_logged(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run("print('rank', RANK, 'speaks'); print('and errs', file=sys.stderr)", 3) == 0
    shown = capfd.readouterr().err
    assert "rank 0 speaks\n" in shown and "and errs\n" in shown
    assert "rank 1 speaks" not in shown and "rank 2 speaks" not in shown
    for rank in range(3):
        assert f"rank {rank} speaks\n" in log(tmp_path, rank)
        assert "and errs\n" in log(tmp_path, rank)
    run("print('again', RANK)", 3)
    assert "rank 2 speaks" in log(tmp_path, 2) and "again 2" in log(tmp_path, 2)


def test_a_killed_rank_ends_all_and_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others ignore SIGTERM, as a rank does that waits in a collective, and have helpers."""
    monkeypatch.setattr(supervisor, "FAILED_GRACE", 1.0)
    begun = time.monotonic()
    with pytest.raises(JobError) as caught:
        run(
            f"""
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            import subprocess
            helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            open(f"{tmp_path}/pids-{{RANK}}", "w").write(f"{{os.getpid()}} {{helper.pid}}")
            while not all(os.path.exists(f"{tmp_path}/pids-{{r}}") for r in range(3)):
                time.sleep(0.01)
            if RANK == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
            """,
            3,
        )
    assert time.monotonic() - begun < 10
    message = str(caught.value)
    assert message.startswith("rank 1 was killed by SIGKILL (out of memory?); its log is ")
    assert str(tmp_path / "logs" / "rank-0001.log") in message
    assert "the same command continues" in message
    assert caught.value.exit_code == 7
    pids = [int(p) for r in range(3) for p in (tmp_path / f"pids-{r}").read_text().split()]
    assert len(pids) == 6
    until(lambda: all(gone(pid) for pid in pids))


def test_the_limits_leave_room_in_thirty_seconds() -> None:
    from trainer.launching.remote import _END_SECONDS

    assert supervisor.FAILED_GRACE + 5 < _END_SECONDS < 20


def test_who_lost_a_peer_is_not_the_cause(run: Run, tmp_path: Path) -> None:
    """Rank 0 ends first: the connections of a process close before it has ended."""
    with pytest.raises(JobError, match=r"rank 1 ended with exit code 70; .*'ValueError: no'"):
        run(
            f"""
            if RANK == 0:
                while not os.path.exists("{tmp_path}/up"):
                    time.sleep(0.01)
                os._exit(7)
            open("{tmp_path}/up", "w").close()
            time.sleep(1)
            print("ValueError: no", flush=True)
            os._exit(70)
            """
        )


def test_a_users_error_keeps_its_words_and_code(run: Run) -> None:
    with pytest.raises(JobError, match=r"^no such dataset: give another \(rank 0, log ") as caught:
        run(
            "print(f'rank {RANK}: error: no such dataset: give another'); sys.exit(3 * (RANK == 0))"
        )
    assert caught.value.exit_code == 3


def test_restarts_continue_after_failures_but_not_after_a_users_error(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = f"""
        count = len(open("{tmp_path}/tries", "a+").read()) if RANK else 0
        if RANK == 1:
            path = "{tmp_path}/tries"
            tries = os.path.getsize(path) if os.path.exists(path) else 0
            open(path, "a").write("x")
            sys.exit(70 if tries < 2 else 0)
    """
    assert run(script, 2, 2) == 0
    assert (tmp_path / "tries").read_text() == "xxx"
    assert log(tmp_path, 1).count("== ") == 3, "one log, every attempt in it"
    said = capfd.readouterr().err
    assert "starting again (1 of 2)" in said and "starting again (2 of 2)" in said
    (tmp_path / "tries").unlink()
    with pytest.raises(JobError):
        run(script, 2, 1)
    assert (tmp_path / "tries").read_text() == "xx"
    (tmp_path / "tries").unlink()
    with pytest.raises(JobError, match="batch"):
        run(script.replace("sys.exit(70", "print('error: batch'); sys.exit(2"), 2, 5)
    assert (tmp_path / "tries").read_text() == "x"


WAITING = """
    def note(number, frame):
        print("got", signal.Signals(number).name, flush=True)
        if CODE is not None:
            time.sleep(0.3 * RANK)
            os._exit(CODE)
    signal.signal(signal.SIGINT, note)
    signal.signal(signal.SIGTERM, note)
    open(f"FOLDER/ready-{RANK}", "w").close()
    while True:
        time.sleep(0.05)
"""


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "GRACE", 0.1)


def signalled(run: Run, tmp_path: Path, code: int | None, *numbers: int) -> int:
    """Send signals to the launcher, this process, once both ranks wait."""

    def send() -> None:
        until(lambda: all((tmp_path / f"ready-{rank}").exists() for rank in (0, 1)))
        for number in numbers:
            os.kill(os.getpid(), number)
            until(lambda: "got" in log(tmp_path, 1))
            time.sleep(signals.GRACE)  # what comes sooner is the same stop

    thread = threading.Thread(target=send)
    thread.start()
    try:
        return run(WAITING.replace("CODE", str(code)).replace("FOLDER", str(tmp_path)))
    finally:
        thread.join()


@pytest.mark.usefixtures("_short_grace")
def test_ctrl_c_lets_ranks_end_by_themselves(run: Run, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signalled(run, tmp_path, 130, signal.SIGINT)
    assert "got SIGINT" in log(tmp_path, 0) and "got SIGINT" in log(tmp_path, 1)
    assert "got SIGTERM" not in log(tmp_path, 1), "rank 1 took its time and was left alone"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.usefixtures("_short_grace")
def test_sigterm_is_passed_on(run: Run, tmp_path: Path) -> None:
    assert signalled(run, tmp_path, 143, signal.SIGTERM) == 143
    assert "got SIGTERM" in log(tmp_path, 0) and "got SIGTERM" in log(tmp_path, 1)


@pytest.mark.usefixtures("_short_grace")
def test_a_second_signal_ends_ranks_that_do_not(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        signalled(run, tmp_path, None, signal.SIGINT, signal.SIGINT)
    assert time.monotonic() - begun < 10
    assert "2 of 2 ranks were killed by SIGKILL without saving" in capfd.readouterr().err


@pytest.mark.usefixtures("_short_grace")
def test_a_run_that_finishes_all_the_same_has_finished(run: Run, tmp_path: Path) -> None:
    assert signalled(run, tmp_path, 0, signal.SIGTERM) == 0


def test_a_stop_in_the_final_evaluation_says_that_steps_are_saved(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Rank 1 has ended by then, and rank 0 hears signals no more."""
    script = f"""
        if RANK == 0:
            open("{tmp_path}/ready-0", "w").close()
            time.sleep(60)
    """

    def send() -> None:
        until((tmp_path / "ready-0").exists)
        time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    assert run(script) == 143
    thread.join()
    said = capfd.readouterr().err
    assert "all steps are saved, 1 of 2 ranks was killed by SIGTERM after them; the same" in said


def test_a_rank_ends_with_its_launcher(tmp_path: Path) -> None:
    """The kernel ends it, whatever it waits for: its input stays open here."""
    script = textwrap.dedent(
        """
        import os, subprocess, sys, time
        from trainer.launching.rank import PARENT
        environ = {**os.environ, PARENT: str(os.getpid())}
        rank = subprocess.Popen([sys.executable, "-m", "trainer.launching.rank"], env=environ,
                                stdin=sys.stdin)
        print(rank.pid, flush=True)
        time.sleep(60)
        """
    )
    launcher = start([sys.executable, "-c", script], stdin=subprocess.PIPE)
    assert launcher.stdout is not None
    pid = int(launcher.stdout.readline())
    time.sleep(0.5)
    assert not gone(pid)
    launcher.kill()
    until(lambda: gone(pid), 5)
    launcher.communicate()


def test_a_port_in_use_is_said_before_ranks_start(run: Run, tmp_path: Path) -> None:
    with listen(None, "127.0.0.1") as sock:
        port = sock.getsockname()[1]
        with pytest.raises(UsageError, match=rf"port {port} of .*: Address already in use"):
            run("pass", local_layout(2, port))
    assert not (tmp_path / "logs" / "rank-0000.log").exists()


def test_the_last_line_is_what_the_rank_said_last(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"== header\nfirst\nprogress 1\rprogress 2\n\n  \xff last \n== header again\n")
    assert last_line(path) == "\ufffd last"
    path.write_bytes(b"== header\n")
    assert last_line(path) == last_line(tmp_path / "none") == ""

"""Engine servers that are forked from a zygote, with a test double of an engine."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving.engine import zygote
from serving.engine.launcher import (
    STATUS_UNKNOWN,
    EngineProcess,
    Zygotes,
    fork,
    spawn,
)
from serving.wire.launch import EngineLaunch

ECHO = "serving.engine.echo:EchoEngine"
SPEC: dict[str, object] = {"id": "echo", "weights": "none", "context": 100}
ENV = {"PATH": os.environ["PATH"], "PYTHONPATH": os.getcwd()}


def launch(engine: str = ECHO) -> EngineLaunch:
    return EngineLaunch(spec=SPEC, replica="r#1", token="t", drain_s=0.1, engine=engine)


@pytest.fixture
def until() -> Iterator[subprocess.Popen[bytes]]:
    """The process with which zygotes end: Ray's node process, where it is real."""
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def zygotes(
    until: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Zygotes:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Zygotes(until.pid, "code", str(tmp_path))


def output(zygotes: Zygotes) -> str:
    assert zygotes.output
    return str(Path(zygotes.output) / "server.out")


def forked(zygotes: Zygotes, env: dict[str, str] = ENV, engine: str = ECHO) -> EngineProcess:
    server = fork(zygotes, launch(engine), env, output(zygotes))
    assert server.ready() is not None
    return server


def zygote_of(server: EngineProcess) -> psutil.Process:
    found = psutil.Process(server.pid).parent()
    assert found is not None
    assert zygote.TITLE in " ".join(found.cmdline())
    return found


def ends(process: psutil.Process, within_s: float = 5.0) -> bool:
    """True if it is gone in time; nobody may be there to reap it."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_server_is_as_one_that_was_started_by_itself(zygotes: Zygotes) -> None:
    env = ENV | {"RAY_X": "1", "SERVING_Y": "2"}
    first = forked(zygotes)
    second = forked(zygotes, env)
    itself = spawn(launch(), env, output(zygotes))
    assert itself.ready() is not None
    assert zygote_of(first) == zygote_of(second), "imports are done once"
    one, other = psutil.Process(second.pid), psutil.Process(itself.pid)
    assert one.cwd() == other.cwd()
    assert os.getpgid(second.pid) == second.pid
    for process in (one, other):
        assert "serving.engine.server echo r#1" in " ".join(process.cmdline())
    for fd in (0, 1, 2):
        files = [os.readlink(f"/proc/{each.pid}/fd/{fd}") for each in (one, other)]
        assert files[0] == files[1]
    for server in (first, second, itself):
        assert server.poll() is None
        server.terminate()
        assert server.wait(10) == 0
        assert server.poll() == 0


def test_the_environment_is_its_own(zygotes: Zygotes, tmp_path: Path) -> None:
    """Also what the C library sees, which `os.environ` passes on."""
    engine = tmp_path / "environment.py"
    engine.write_text(
        textwrap.dedent("""
            import ctypes, json, os, pathlib
            from serving.engine.echo import EchoEngine
            class Engine(EchoEngine):
                def __init__(self, spec):
                    super().__init__(spec)
                    libc = ctypes.CDLL(None)
                    libc.getenv.restype = ctypes.c_char_p
                    seen = libc.getenv(b"SERVING_SAID")
                    here = pathlib.Path(__file__).with_name(f"{os.environ['SERVING_SAID']}.json")
                    here.write_text(json.dumps([seen.decode(), sorted(os.environ)]))
        """)
    )
    env = ENV | {"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    for said in ("one", "two"):
        server = forked(zygotes, env | {"SERVING_SAID": said}, "environment:Engine")
        seen, names = json.loads((tmp_path / f"{said}.json").read_text())
        assert seen == said
        assert set(names) - {"LC_CTYPE"} == {*env, "SERVING_SAID", "SERVING_ENGINE_PARENT"}
        server.kill_group()
        assert server.wait(5) == -signal.SIGKILL


def test_another_environment_or_code_is_another_zygote(
    zygotes: Zygotes, until: subprocess.Popen[bytes]
) -> None:
    path = zygotes.path(ENV, "/")
    assert path == zygotes.path(ENV | {"RAY_JOB_ID": "2", "CUDA_VISIBLE_DEVICES": "1"}, "/")
    others = {
        zygotes.path(ENV | {"OMP_NUM_THREADS": "2"}, "/"),
        zygotes.path({}, "/"),
        zygotes.path(ENV, "/tmp"),
        Zygotes(until.pid, "newer code").path(ENV, "/"),
        Zygotes(os.getpid(), "code").path(ENV, "/"),
    }
    assert len(others - {path}) == 5


def test_it_dies_with_whoever_asked_for_it(zygotes: Zygotes, tmp_path: Path) -> None:
    """However that one ends, and although its parent, the zygote, lives on."""
    script = f"""
        import os, sys, time
        from serving.engine.launcher import Zygotes, fork
        from serving.wire.launch import EngineLaunch
        import msgspec
        launch = msgspec.json.decode({json.dumps(_json(launch()))!r}, type=EngineLaunch)
        zygotes = Zygotes({zygotes.until}, "code", {str(tmp_path)!r})
        server = fork(zygotes, launch, {ENV!r}, {output(zygotes)!r})
        server.ready()
        print(server.pid, flush=True)
        time.sleep(600)
    """
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    assert holder.stdout is not None
    server = psutil.Process(int(holder.stdout.readline()))
    parent = server.parent()
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert ends(server)
    assert parent is not None
    assert parent.is_running()
    again = forked(zygotes)
    assert zygote_of(again) == parent, "and forks on"
    again.kill_group()


def _json(value: EngineLaunch) -> dict[str, object]:
    return {"spec": value.spec, "replica": value.replica, "engine": value.engine}


def test_a_zygote_that_is_killed_takes_no_server_with_it(zygotes: Zygotes) -> None:
    server = forked(zygotes)
    old = zygote_of(server)
    old.kill()
    assert ends(old)
    assert server.poll() is None
    new = forked(zygotes)
    assert zygote_of(new) != old
    server.terminate()
    assert server.wait(10) == STATUS_UNKNOWN
    new.kill_group()


def test_it_ends_with_the_node(zygotes: Zygotes, until: subprocess.Popen[bytes]) -> None:
    server = forked(zygotes)
    parent = zygote_of(server)
    until.kill()
    assert ends(parent)
    assert server.poll() is None, "that is its replica's business"
    server.kill_group()


def test_it_ends_when_nobody_needs_it(
    until: subprocess.Popen[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zygote, "IDLE_S", 0.2)
    path = tmp_path / "socket"
    child = os.fork()
    if not child:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            zygote.Zygote(listener, os.pidfd_open(until.pid)).run()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def test_no_server_has_files_of_others(zygotes: Zygotes) -> None:
    servers = [forked(zygotes) for _ in range(3)]
    for server in servers:
        fds = Path(f"/proc/{server.pid}/fd")
        links = [os.readlink(fd) for fd in fds.iterdir() if fd.exists()]
        assert len([link for link in links if "pidfd" in link]) == 0, links
        listening = psutil.Process(server.pid).net_connections("unix")
        assert not [each for each in listening if "zygote" in str(each.laddr)], listening
    for server in servers:
        server.kill_group()
        assert server.wait(5) == -signal.SIGKILL


@pytest.mark.parametrize(
    "message",
    [b"", b"\n", b"{}\n", b"{" * 100, b'{"launch": 1}\n', b"\xff" * (1 << 17) + b"\n"],
    ids=["nothing", "empty", "no fields", "half", "wrong", "long"],
)
def test_what_is_no_request_harms_it_not(zygotes: Zygotes, message: bytes) -> None:
    server = forked(zygotes)
    parent = zygote_of(server)
    before = parent.num_fds()
    with zygotes.connect(ENV, os.getcwd()) as caller:
        caller.sendall(message)
        caller.shutdown(socket.SHUT_WR)
        caller.settimeout(10)
        said = b"".join(iter(lambda: caller.recv(4096), b""))
    assert b"problem" in said
    again = forked(zygotes)
    assert zygote_of(again) == parent
    for each in (server, again):
        each.kill_group()
        each.wait(5)
    assert parent.num_fds() <= before


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("raise ImportError('no such library')", "no such library"),
        (
            "import threading, time\n"
            "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()",
            "thread",
        ),
    ],
)
def test_an_engine_that_cannot_be_forked_is_told(
    zygotes: Zygotes, tmp_path: Path, code: str, says: str
) -> None:
    (tmp_path / "unfit.py").write_text(code)
    env = ENV | {"PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    with pytest.raises(OSError, match=says):
        fork(zygotes, launch("unfit:Engine"), env, None)


def test_a_server_that_fails_to_start_says_so(zygotes: Zygotes) -> None:
    server = fork(zygotes, launch("serving.engine.echo:NoEngine"), ENV, output(zygotes))
    assert server.ready() is None
    assert server.wait(10) == 1
    assert "NoEngine" in Path(output(zygotes)).read_text()


def test_a_folder_that_others_may_enter_is_not_used(zygotes: Zygotes) -> None:
    folder = zygotes.path(ENV, "/").parent
    folder.chmod(0o755)
    with pytest.raises(PermissionError, match="remove it"):
        fork(zygotes, launch(), ENV, None)

"""What workers write reaches the caller's stdout and stderr."""

import pytest

from scripts import run_text


def test_prints_reach_stdout_without_a_prefix_before_join_returns(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        def say(number):
            print("message:", number)

        if __name__ == "__main__":
            pool = Pool(2)
            pool.map(say, range(10))
            pool.close()
            pool.join()
            print("joined")
        """,
    ).succeeded()
    assert sorted(ended.lines[:-1]) == sorted(f"message: {number}" for number in range(10))
    assert ended.lines[-1] == "joined"
    assert ended.err == ""


def test_what_is_written_to_stderr_reaches_stderr(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import sys
        from fleetpool import Pool

        def say(number):
            print("warning", number, file=sys.stderr)

        if __name__ == "__main__":
            with Pool(2) as pool:
                pool.map(say, range(3))
                pool.close()
                pool.join()
        """,
    ).succeeded()
    assert sorted(ended.err.splitlines()) == ["warning 0", "warning 1", "warning 2"]
    assert ended.out == ""


def test_what_c_and_child_processes_write_arrives_too(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import os, subprocess
        from fleetpool import Pool

        def say(number):
            os.write(1, b"by system call\\n")
            subprocess.run(["echo", "by child"])
            subprocess.run("echo by child >&2", shell=True)
            os.system("echo by system")

        if __name__ == "__main__":
            with Pool(2) as pool:
                pool.map(say, [0])
                pool.close()
                pool.join()
        """,
    ).succeeded()
    assert sorted(ended.lines) == ["by child", "by system", "by system call"]
    assert ended.err == "by child\n"


@pytest.mark.beyond
def test_output_of_a_task_comes_before_its_result(tmp_path):
    """With the standard library a worker's stdout may be buffered until it ends, when it is no terminal."""
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        def say(number):
            print("task", number)
            print("no newline", number, end="")
            return number

        if __name__ == "__main__":
            with Pool(2) as pool:
                for number in range(20):
                    print("\\nresult", pool.apply(say, (number,)), flush=True)
        """,
    ).succeeded()
    expected = []
    for number in range(20):
        expected += [f"task {number}", f"no newline {number}", f"result {number}"]
    assert [line for line in ended.lines if line] == expected


@pytest.mark.beyond
def test_what_a_task_wrote_before_it_died_arrives(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import os, signal
        from fleetpool import Pool, WorkerLost

        def die(_):
            print("last words", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)

        if __name__ == "__main__":
            with Pool(2) as pool:
                try:
                    pool.apply(die, (0,))
                except WorkerLost:
                    print("lost")
        """,
    ).succeeded()
    assert ended.lines == ["last words", "lost"]


@pytest.mark.beyond
def test_long_lines_are_whole(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import sys
        from fleetpool import Pool

        def say(letter):
            for _ in range(20):
                sys.stdout.write(letter * 3000 + "\\n")
                sys.stdout.flush()

        if __name__ == "__main__":
            with Pool(4) as pool:
                pool.map(say, "abcd", 1)
                pool.close()
                pool.join()
        """,
    ).succeeded()
    assert sorted(ended.lines) == sorted(letter * 3000 for letter in "abcd" for _ in range(20))


@pytest.mark.beyond
def test_lines_of_an_unbuffered_worker_are_whole(tmp_path):
    """`print` writes its arguments one by one then; the standard library's workers write into each other's lines."""
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        def say(number):
            for _ in range(50):
                print("this", "is", "one", "line", number)

        if __name__ == "__main__":
            with Pool(4) as pool:
                pool.map(say, range(8), 1)
                pool.close()
                pool.join()
        """,
        env={"PYTHONUNBUFFERED": "1"},
    ).succeeded()
    assert sorted(ended.lines) == sorted(f"this is one line {number}" for number in range(8) for _ in range(50))


@pytest.mark.beyond
def test_much_output_arrives_in_whole_lines(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        def say(number):
            for line in range(2000):
                print(number, line, "x" * 50)

        if __name__ == "__main__":
            with Pool(2) as pool:
                pool.map(say, range(10), 1)
                pool.close()
                pool.join()
        """,
    ).succeeded()
    assert sorted(ended.lines) == sorted(f"{number} {line} {'x' * 50}" for number in range(10) for line in range(2000))


def test_text_that_is_not_ascii_arrives_as_it_is(tmp_path):
    ended = run_text(
        tmp_path,
        """
        from fleetpool import Pool

        def say(_):
            print("größer — 大きい")

        if __name__ == "__main__":
            with Pool(1) as pool:
                pool.map(say, [0])
                pool.close()
                pool.join()
        """,
        env={"PYTHONUTF8": "1"},
    ).succeeded()
    assert ended.lines == ["größer — 大きい"]


def test_logging_of_a_worker_reaches_stderr(tmp_path):
    ended = run_text(
        tmp_path,
        """
        import logging
        from fleetpool import Pool

        def start():
            logging.basicConfig(level=logging.INFO, format="%(processName)s %(message)s")

        def work(number):
            logging.info("working on %s", number)

        if __name__ == "__main__":
            with Pool(2, start) as pool:
                pool.map(work, range(3))
                pool.close()
                pool.join()
        """,
    ).succeeded()
    assert sorted(line.split(" ", 1)[1] for line in ended.err.splitlines()) == [f"working on {n}" for n in range(3)]
    assert "MainProcess" not in ended.err


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_a_caller_without_a_standard_stream_works(tmp_path, closed):
    number = ["stdin", "stdout", "stderr"].index(closed)
    ended = run_text(
        tmp_path,
        f"""
        import os
        os.close({number})
        from fleetpool import Pool

        def work(x):
            return x

        if __name__ == "__main__":
            with Pool(2) as pool:
                assert pool.map(work, range(3)) == [0, 1, 2]
            open({str(tmp_path / "done")!r}, "w").close()
        """,
    )
    assert (tmp_path / "done").exists(), ended.err

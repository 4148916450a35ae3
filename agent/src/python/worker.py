

# -- the worker's loop (worker.py) -------------------------------------------------------------------------------
#
# Talks to its agent over one socket, in frames of fixed width: length, kind, and columns of numbers, then bytes
# (`agent/src/workers/dialect.rs`). It runs one task at a time, in the order they came, and has one thread: a task may
# fork.

import _socket
import fcntl
import mmap
import os
import select
import struct
import time
from _collections import deque
from functools import partial

READY, UNFIT, RESULT, GIVEN_BACK = 1, 2, 3, 4
DEFINE, RUN, GO, STOP = 2, 3, 5, 6
# The tray: a byte for each task, by its number, whether it is void; and results that wait to be sent together
# (`agent/src/workers/tray.rs`).
MARKS_AT, MARKS = 64, 4096
OUTBOX_AT, OUTBOX_BYTES = 8192, 64 << 10
# Results of tasks that were shorter than this wait, and no longer than that.
SHORT_US, WAIT_NS = 200, 1_000_000

HEAD = struct.Struct("<IB")
RESULT_HEAD = struct.Struct("<IBQIBBQQ")
RESULT_BYTES, write_result = RESULT_HEAD.size, RESULT_HEAD.pack_into
ROW = struct.Struct("<QII")
READ_BYTES = 256 << 10
# Pieces of a result up to this size are put together.
JOINED_BYTES_MAX = 64 << 10
# The largest result: `PAYLOAD_BYTES_MAX` of `proto/src/limits.rs`.
RESULT_BYTES_MAX = (1 << 30) - (1 << 20)


class Inbox:
    """What has come from the agent and not been looked at."""

    def __init__(self, sock):
        self.sock = sock
        self.data = memoryview(b"")
        # Tasks at hand: index, attempt, specification, argument.
        self.tasks = deque()
        self.go = False
        self.stop = False

    def frame(self):
        """The next frame's kind and body."""
        while len(self.data) < HEAD.size:
            self.fill()
        length, kind = HEAD.unpack_from(self.data)
        end = 4 + length
        if len(self.data) < end:
            # The rest is on its way: it is read where it is to be.
            whole = bytearray(end)
            have = len(self.data)
            whole[:have] = self.data
            view = memoryview(whole)
            while have < end:
                count = self.sock.recv_into(view[have:])
                if not count:
                    os._exit(0)
                have += count
            self.data = memoryview(b"")
            return kind, view[5:]
        body = self.data[5:end]
        self.data = self.data[end:]
        return kind, body

    def has_frame(self):
        """Whether a whole one has come."""
        return len(self.data) >= HEAD.size and len(self.data) >= 4 + HEAD.unpack_from(self.data)[0]

    def fill(self):
        try:
            part = self.sock.recv(READ_BYTES)
        except ConnectionError:
            os._exit(0)
        if not part:
            # The agent is gone, and with it the reason to live.
            os._exit(0)
        self.data = memoryview(bytes(self.data) + part if self.data else part)

    def hear(self):
        """Waits until something is said, and takes in what has come."""
        while True:
            kind, body = self.frame()
            if kind == RUN:
                self.hand(body)
            elif kind == DEFINE:
                define(int.from_bytes(body[:4], "little"), bytes(body[4:]))
            elif kind == GO:
                self.go = True
            elif kind == STOP:
                self.stop = True
            if not self.has_frame():
                return

    def hand(self, body):
        count = int.from_bytes(body[:4], "little")
        at = 4 + 20 * count
        columns = struct.unpack_from("<%dQ%dI" % (count, 3 * count), body, 4)
        if len(body) <= JOINED_BYTES_MAX:
            # Small ones are quicker to take apart so.
            body = bytes(body)
        arguments = []
        for length in columns[3 * count :]:
            arguments.append(body[at : at + length])
            at += length
        self.tasks.extend(zip(columns[:count], columns[count : 2 * count], columns[2 * count : 3 * count], arguments))


def say(sock, kind, body):
    send(sock, [HEAD.pack(len(body) + 1, kind) + body])


def send(sock, pieces):
    """Sends all of it; large pieces are not copied."""
    try:
        if len(pieces) == 1:
            sock.sendall(pieces[0])
            return
        pieces = [memoryview(piece).cast("B") for piece in pieces if len(piece)]
        while pieces:
            sent = sock.sendmsg(pieces[:64])
            while pieces and sent >= len(pieces[0]):
                sent -= len(pieces.pop(0))
            if sent:
                pieces[0] = pieces[0][sent:]
    except OSError:
        os._exit(0)


def send_result(sock, result, index, attempt, outcome, printed, started_us, took_us):
    pieces = [result] if type(result) is bytes else result
    size = sum(memoryview(piece).nbytes for piece in pieces)
    if size > RESULT_BYTES_MAX:
        outcome, pieces = FAILED, [too_large(size)]
        size = len(pieces[0])
    size += RESULT_BYTES
    send(sock, [RESULT_HEAD.pack(size - 4, RESULT, index, attempt, outcome, printed, started_us, took_us), *pieces])


def too_large(size):
    """A result of that size, as an error."""
    why = "it is over the limit of %d bytes: write it to a file and return its path" % RESULT_BYTES_MAX
    return failure(NotSent(why, "a result of %d bytes" % size))


def unread_output():
    """What tells whether stdout and stderr hold what the agent has not read."""
    pipes = select.poll()
    for fd in (1, 2):
        # The other end of each, to ask about it.
        end = os.open("/proc/self/fd/%d" % fd, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        pipes.register(end, select.POLLIN)
    return partial(pipes.poll, 0)


class Outbox:
    """Results of short tasks, in memory that outlives this process, until they are sent together."""

    def __init__(self, sock, tray):
        self.sock = sock
        self.turns, self.used_word = tray[8:16].cast("Q"), tray[16:24].cast("Q")
        self.box = tray[OUTBOX_AT:]
        self.used = 0

    def put(self, result, index, attempt, outcome, started_us, took_us):
        """Puts a result behind the others; whether it is small enough, and there was room."""
        if type(result) is not bytes:
            return False
        at = self.used
        size = RESULT_BYTES + len(result)
        end = at + size
        if end > OUTBOX_BYTES:
            return False
        write_result(self.box, at, size - 4, RESULT, index, attempt, outcome, False, started_us, took_us)
        self.box[at + RESULT_BYTES : end] = result
        self.used_word[0] = self.used = end
        return True

    def send(self):
        if self.used:
            send(self.sock, [self.box[: self.used]])
            self.turns[0] += 1
            self.used_word[0] = self.used = 0


def serve(inbox, tray):
    """Runs tasks until it is told to stop. What is done here is done for each task: it is what a short one costs."""
    sock, tasks = inbox.sock, inbox.tasks
    begun, marks = tray[:8].cast("Q"), tray[MARKS_AT : MARKS_AT + MARKS]
    outbox, clock, has_printed = Outbox(sock, tray), time.perf_counter_ns, unread_output()
    number = 0
    while True:
        if not tasks:
            outbox.send()
            if inbox.stop:
                return
            current.attempt = 0
            inbox.hear()
            now = said = clock()
            wall = time.time_ns() - now
            continue
        index, attempt, spec, argument = tasks.popleft()
        # First that it has come to the task, then the look: the agent does it the other way round.
        number += 1
        begun[0] = number
        if marks[number - 1 & MARKS - 1]:
            outbox.send()
            say(sock, GIVEN_BACK, ROW.pack(index, attempt, spec))
            continue
        current.index, current.attempt = index, attempt
        outcome, result = run(spec, argument)
        argument = None
        started, now = now, clock()
        flush()
        started_us, took_us = (wall + started) // 1000, (now - started) // 1000
        printed = has_printed()
        if not printed and outbox.put(result, index, attempt, outcome, started_us, took_us):
            if tasks and took_us < SHORT_US and now - said < WAIT_NS:
                continue
            outbox.send()
        else:
            outbox.send()
            send_result(sock, result, index, attempt, outcome, bool(printed), started_us, took_us)
            result = None
            # Until the agent has read what was printed, nobody else is to print.
            while printed and not inbox.go:
                inbox.hear()
            inbox.go = False
        now = said = clock()


def refuse(sock, reason):
    """Says why this process is of no use, and ends it."""
    say(sock, UNFIT, reason.encode("utf-8", "replace"))
    os._exit(1)


def work(sock, tray_fd):
    """Is a worker until it is told to stop."""
    inbox = Inbox(sock)
    # Its keeper is there now: nothing that it starts can get away.
    inbox.frame()
    tray = memoryview(mmap.mmap(tray_fd, OUTBOX_AT + OUTBOX_BYTES))
    os.close(tray_fd)
    try:
        begin()
    except Unfit as reason:
        refuse(sock, str(reason))
    except BaseException as error:
        refuse(sock, "it could not get ready: " + traceback_of(error))
    flush()
    say(sock, READY, struct.pack("<I", os.getpid()))
    serve(inbox, tray)
    flush()

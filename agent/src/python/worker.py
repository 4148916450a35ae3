

# -- the worker's loop (worker.py) -------------------------------------------------------------------------------
#
# Talks to its agent over one socket, in frames of fixed width: length, kind, and columns of numbers, then bytes
# (`agent/src/workers/dialect.rs`). It runs one task at a time, in the order they came, and has one thread: a task may
# fork.

import fcntl
import mmap
import os
import socket
import struct
import termios
import time

READY, UNFIT, RESULT, GIVEN_BACK = 1, 2, 3, 4
DEFINE, RUN, GO, STOP = 2, 3, 5, 6
# The tray: a byte for each task, by its number, whether it is void; and results that wait to be sent together
# (`agent/src/workers/tray.rs`).
MARKS_AT, MARKS = 64, 4096
OUTBOX_AT, OUTBOX_BYTES = 8192, 64 << 10
# Results of tasks that were shorter than this wait, and no longer than that.
SHORT_NS, WAIT_NS = 200_000, 1_000_000

HEAD = struct.Struct("<IB")
RESULT_HEAD = struct.Struct("<IBQIBBQQ")
ROW = struct.Struct("<QII")
READ_BYTES = 256 << 10
# Pieces of a result up to this size are put together.
JOINED_BYTES_MAX = 64 << 10


class Inbox:
    """What has come from the agent and not been looked at."""

    def __init__(self, sock):
        self.sock = sock
        self.data = memoryview(b"")
        # Tasks at hand: index, attempt, specification, argument.
        self.tasks = []
        self.at = 0
        self.go = False
        self.stop = False

    def frame(self, wait):
        """The next frame's kind and body; `None` when there is none and none is waited for."""
        while len(self.data) < 5:
            if not self.fill(wait):
                return None
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

    def fill(self, wait):
        try:
            part = self.sock.recv(READ_BYTES, 0 if wait else socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionError:
            os._exit(0)
        if not part:
            # The agent is gone, and with it the reason to live.
            os._exit(0)
        self.data = memoryview(bytes(self.data) + part if self.data else part)
        return True

    def hear(self, wait):
        """Takes in what has been said: one frame, or all that is there."""
        while (said := self.frame(wait)) is not None:
            wait = False
            kind, body = said
            if kind == RUN:
                self.hand(body)
            elif kind == DEFINE:
                define(int.from_bytes(body[:4], "little"), bytes(body[4:]))
            elif kind == GO:
                self.go = True
            elif kind == STOP:
                self.stop = True

    def hand(self, body):
        count = int.from_bytes(body[:4], "little")
        at = 4 + 20 * count
        columns = struct.unpack_from("<%dQ%dI" % (count, 3 * count), body, 4)
        if self.at:
            del self.tasks[: self.at]
            self.at = 0
        for number in range(count):
            length = columns[3 * count + number]
            self.tasks.append(
                (columns[number], columns[count + number], columns[2 * count + number], body[at : at + length])
            )
            at += length


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


def has_printed(buffer=bytearray(4)):
    """Whether the pipes hold what the agent has not read."""
    try:
        fcntl.ioctl(1, termios.FIONREAD, buffer)
        if any(buffer):
            return True
        fcntl.ioctl(2, termios.FIONREAD, buffer)
        return any(buffer)
    except OSError:
        return False


class Outbox:
    """Results of short tasks, in memory that outlives this process, until they are sent together."""

    def __init__(self, sock, tray):
        self.sock = sock
        self.turns, self.used_word = tray[8:16].cast("Q"), tray[16:24].cast("Q")
        self.box = tray[OUTBOX_AT:]
        self.used = 0
        self.oldest = 0

    def put(self, frame, now):
        """Whether there is room for it, and time."""
        used = self.used
        end = used + len(frame)
        if used == 0:
            self.oldest = now
        elif now - self.oldest > WAIT_NS:
            return False
        if end > OUTBOX_BYTES:
            return False
        self.box[used:end] = frame
        self.used_word[0] = self.used = end
        return True

    def send(self):
        if self.used:
            send(self.sock, [self.box[: self.used]])
            self.turns[0] += 1
            self.used_word[0] = self.used = 0


def serve(inbox, tray):
    sock, tasks = inbox.sock, inbox.tasks
    clock, wall = time.perf_counter_ns, time.time_ns
    begun, marks = tray[:8].cast("Q"), tray[MARKS_AT : MARKS_AT + MARKS]
    outbox = Outbox(sock, tray)
    number = 0
    while True:
        if inbox.at >= len(tasks):
            outbox.send()
            if inbox.stop:
                return
            inbox.hear(True)
            continue
        index, attempt, spec, argument = tasks[inbox.at]
        tasks[inbox.at] = None
        inbox.at += 1
        # First that it has come to the task, then the look: the agent does it the other way round.
        number += 1
        begun[0] = number
        if marks[number - 1 & MARKS - 1]:
            outbox.send()
            say(sock, GIVEN_BACK, ROW.pack(index, attempt, spec))
            continue
        started = wall()
        at = clock()
        outcome, pieces = run(spec, index, attempt, argument)
        now = clock()
        took = now - at
        argument = None
        flush()
        printed = has_printed()
        size = len(pieces[0]) if len(pieces) == 1 else sum(memoryview(piece).nbytes for piece in pieces)
        head = RESULT_HEAD.pack(
            size + 31, RESULT, index, attempt, outcome, printed, started // 1000, took // 1000
        )
        if size <= JOINED_BYTES_MAX:
            frame = b"".join([head, *pieces])
            if took < SHORT_NS and not printed and inbox.at < len(tasks) and outbox.put(frame, now):
                continue
            outbox.send()
            send(sock, [frame])
        else:
            outbox.send()
            send(sock, [head, *pieces])
        pieces = None
        if printed:
            while not inbox.go:
                inbox.hear(True)
            inbox.go = False
        else:
            inbox.hear(False)


def refuse(sock, reason):
    """Says why this process is of no use, and ends it."""
    say(sock, UNFIT, reason.encode("utf-8", "replace"))
    os._exit(1)


def work(sock, tray_fd):
    """Is a worker until it is told to stop."""
    inbox = Inbox(sock)
    # Its keeper is there now: nothing that it starts can get away.
    inbox.frame(True)
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



# -- the template (template.py) ----------------------------------------------------------------------------------
#
# One process a pool and host. It has loaded what all workers of the pool begin with, and imported the modules that
# their functions need; each worker is a fork of it, and has them at once. It runs nothing of the user's itself but
# the import of modules, and ends with its agent: the kernel sees to that, in the middle of an import too.

import _signal
import gc
import select

IMPORT, FORK = 1, 2
REQUEST_BYTES_MAX = 64 << 10
FORK_REQUEST = struct.Struct("<BIB")
# A keeper's socket, lock and fence; a worker's socket, stdout, stderr and tray.
DESCRIPTORS_MAX = 8


class Template:
    def __init__(self, requests, executable, lock):
        self.requests = requests
        # The agent's own binary, whatever has become of its file.
        self.executable, self.lock = executable, lock
        # Keepers that live, and a second handle on each one's socket: its agent sees the end of it when nothing can be
        # below it any more, since what was has been handed to the spawner.
        self.keepers = {}
        self.awake, wake = os.pipe()
        self.pipe = [self.awake, wake]
        for end in self.pipe:
            os.set_blocking(end, False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        _signal.set_wakeup_fd(wake, warn_on_full_buffer=False)

    def serve(self):
        """Serves the agent until it goes away; returns in each worker, with its descriptors."""
        poll = select.poll()
        poll.register(self.requests, select.POLLIN)
        poll.register(self.awake, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == self.awake:
                    self.reap()
                    continue
                request, descriptors = self.receive()
                if not request:
                    os._exit(0)
                if request[0] == IMPORT:
                    import_all(request[1:].decode().split())
                elif (worker := self.fork(request, descriptors)) is not None:
                    return worker

    def receive(self):
        # Not by `socket.recv_fds`, which forgets its flags.
        request, ancillary, _, _ = self.requests.recvmsg(
            REQUEST_BYTES_MAX, _socket.CMSG_LEN(DESCRIPTORS_MAX * 4), _socket.MSG_CMSG_CLOEXEC
        )
        descriptors = [fd for _, _, data in ancillary for (fd,) in struct.iter_unpack("i", data)]
        return request, descriptors

    def reap(self):
        try:
            os.read(self.awake, 4096)
        except BlockingIOError:
            pass
        while self.keepers:
            pid, _ = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            os.close(self.keepers.pop(pid))

    def fork(self, request, descriptors):
        """Forks a keeper, which forks the worker; returns in the worker alone."""
        _, slot, fenced = FORK_REQUEST.unpack(request)
        keeper, fence, worker = descriptors[0], descriptors[1 : 1 + fenced], descriptors[1 + fenced :]
        child = fork_or_say(worker[0])
        if child is None:
            for fd in descriptors:
                os.close(fd)
        elif child:
            self.keepers[child] = keeper
            for fd in fence + worker:
                os.close(fd)
        else:
            # The worker's end is not to be missed, however soon it comes.
            _signal.pthread_sigmask(_signal.SIG_BLOCK, [_signal.SIGCHLD])
            child = fork_or_say(worker[0])
            if child is None:
                os._exit(1)
            if child:
                self.become_keeper(child, [keeper, self.lock, *fence])
            self.become_worker(slot, [keeper, *fence])
            return worker

    def become_keeper(self, worker, descriptors):
        try:
            for fd in descriptors:
                os.set_inheritable(fd, True)
            words = ["fleetpool", "__fleetpool-keeper", str(worker), *map(str, descriptors)]
            os.execve(self.executable, words, os.environ)
        finally:
            os._exit(1)

    def become_worker(self, slot, descriptors):
        """Leaves behind what is the template's: a worker begins like any process."""
        _signal.set_wakeup_fd(-1)
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        _signal.pthread_sigmask(_signal.SIG_SETMASK, [])
        os.setpgid(0, 0)
        for fd in [*descriptors, self.requests.fileno(), self.executable, self.lock, *self.pipe]:
            os.close(fd)
        for fd in self.keepers.values():
            os.close(fd)
        os.environ["FLEETPOOL_SLOT"] = str(slot)
        # For its keeper, which has it by now.
        os.environ.pop("FLEETPOOL_LEAF", None)
        if "numpy.random" in sys.modules:
            # Or every worker draws the same numbers. What is Python's own sees to that itself.
            sys.modules["numpy.random"].seed()


def fork_or_say(worker):
    """Forks; when it cannot, says so over the worker's socket, and returns `None`."""
    try:
        return os.fork()
    except OSError as error:
        say(_socket.socket(fileno=os.dup(worker)), UNFIT, b"no process could be forked for it: " + str(error).encode())


def import_all(names):
    """What cannot be imported here is an error of the task that needs it."""
    from importlib import import_module

    for name in names:
        try:
            import_module(name)
        except BaseException:
            pass
    flush()
    if "threading" in sys.modules and sys.modules["threading"].active_count() > 1:
        # A fork would have locks that such a thread holds, and not the thread. The next template imports nothing.
        os._exit(0)
    # What is there now is never garbage: workers share its memory.
    gc.freeze()


def die_with_agent():
    """When the agent closes its end, the kernel ends this process, whatever it does then."""
    fcntl.fcntl(agent, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(agent, fcntl.F_SETFL, fcntl.fcntl(agent, fcntl.F_GETFL) | os.O_ASYNC)
    # It may have been closed before.
    if select.select([agent], [], [], 0)[0]:
        os._exit(0)


def main():
    inbox = Inbox(agent)
    _signal.pthread_sigmask(
        _signal.SIG_BLOCK, [_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM, _signal.SIGTSTP]
    )
    try:
        _, body = inbox.frame()
        load_context(bytes(body))
    except Unfit as reason:
        refuse(agent, str(reason))
    except BaseException as error:
        refuse(agent, "it could not get ready: " + traceback_of(error))
    die_with_agent()
    flush()
    gc.freeze()
    say(agent, READY, bytes(sys.version_info[:2]))
    _, requests, executable, lock = descriptors
    template = Template(_socket.socket(fileno=requests), executable, lock)
    sock, stdout, stderr, tray = template.serve()
    agent.close()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    work(_socket.socket(fileno=sock), tray)


main()

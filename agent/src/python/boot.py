import os, socket, struct, sys
agent = socket.socket(fileno=int(os.environ.pop("FLEETPOOL_WORKER_FD")))
agent.set_inheritable(False)
def read(size):
    data = bytearray()
    while len(data) < size:
        part = agent.recv(size - len(data))
        if not part:
            os._exit(0)
        data += part
    return bytes(data)
if sys.version_info < (3, 10):
    reason = b"it has Python %s (%s), and fleetpool needs 3.10 or newer: install one, or name it with python=" % (
        sys.version.split()[0].encode(), sys.executable.encode())
    agent.sendall(struct.pack("<IB", len(reason) + 1, 2) + reason)
    os._exit(1)
exec(compile(read(struct.unpack("<I", read(4))[0]), "<fleetpool worker>", "exec"), {"agent": agent, "__name__": "_fleetpool_program"})

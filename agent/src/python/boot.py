import os, _socket, struct, sys
words = os.environ.pop("FLEETPOOL_TEMPLATE").split()
descriptors = [int(fd) for fd in words[:4]]
for name in words[4:]:
    del os.environ[name]
for fd in descriptors:
    os.set_inheritable(fd, False)
agent = _socket.socket(fileno=descriptors[0])
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
exec(compile(read(struct.unpack("<I", read(4))[0]), "<fleetpool worker>", "exec"), {
    "agent": agent, "descriptors": descriptors, "__name__": "_fleetpool_program"})

"""Gives commands to baresip's console, each so many seconds after the start: keys.py 5:x 8:X 10:1"""

import socket
import sys
import time

started = time.monotonic()
console = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for word in sys.argv[1:]:
    at, command = word.split(":", 1)
    time.sleep(max(0.0, started + float(at) - time.monotonic()))
    console.sendto(command.encode(), ("127.0.0.1", 5555))
    if command.isdigit():
        # A key is let go after a while.
        time.sleep(0.25)
        console.sendto(b"\x04", ("127.0.0.1", 5555))

#!/usr/bin/python3
"""A TCP relay on loopback that makes a server seem far away: every byte, and every connection, comes
later, in both directions.

usage: relay.py PORT SERVER_PORT DELAY_MS
"""
import asyncio
import collections
import os
import signal
import sys


class End(asyncio.Protocol):
    """What comes here is written to the other end when its time has come."""

    def __init__(self, delay):
        self.loop = asyncio.get_running_loop()
        self.delay = delay
        self.queue = collections.deque()  # (when, bytes)
        self.transport = self.other = self.timer = None

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.queue.append((self.loop.time() + self.delay, data))
        self.wait()

    def wait(self):
        if self.timer is None and self.queue and self.other:
            self.timer = self.loop.call_at(self.queue[0][0], self.send)

    def send(self):
        self.timer = None
        while self.queue and self.queue[0][0] <= self.loop.time():
            self.other.transport.write(self.queue.popleft()[1])
        self.wait()

    def connection_lost(self, _):
        if self.other:
            self.loop.call_later(self.delay, self.other.transport.close)


async def main(port, server_port, delay):
    loop = asyncio.get_running_loop()

    async def connect(near):
        far = End(delay)
        await asyncio.sleep(2 * delay)  # for SYN and its answer
        try:
            await loop.create_connection(lambda: far, "127.0.0.1", server_port)
        except OSError:
            near.transport.abort()
            return
        near.other, far.other = far, near
        near.wait()

    def accept():
        near = End(delay)
        tasks.add(task := loop.create_task(connect(near)))
        task.add_done_callback(tasks.discard)
        return near

    tasks = set()
    await (await loop.create_server(accept, "127.0.0.1", port)).serve_forever()


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]) / 1000))

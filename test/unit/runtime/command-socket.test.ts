// The client of liblxc's command socket, against a monitor that speaks its wire format.
import { randomUUID } from 'node:crypto';
import { createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { askInitPid, askState, awaitExit, commandSocketPath, sendStop } from '#drivers/runtime/lxc/command-socket.ts';

/** Answers like a monitor: `state`, `pid`; keeps those who wait for its end. */
class FakeMonitor {
  readonly path = `\0test-${randomUUID()}/command`;
  readonly waiting: Socket[] = [];
  readonly requests: number[] = [];
  state = 2;
  pid = 4711;
  silent = false;
  /** So many requests are answered with -EPERM, as liblxc answers those of whom it has no credentials yet. */
  refusals = 0;
  readonly #sockets = new Set<Socket>();
  readonly #server: Server = createServer((socket) => this.#serve(socket));

  async listen(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen({ path: this.path }, resolve));
    return this;
  }

  end(): void {
    this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  /** struct lxc_msg: type, name[256], value. */
  reboot(): void {
    const message = Buffer.alloc(264);
    message.writeInt32LE(2, 260);
    for (const socket of this.waiting) socket.end(message);
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => undefined);
    socket.on('data', (data: Buffer) => {
      const command = data.readInt32LE(0);
      this.requests.push(command);
      if (this.silent) return;
      if (this.refusals > 0) {
        this.refusals -= 1;
        const refusal = this.#answer(0);
        refusal.writeInt32LE(-1, 0);
        return void socket.end(refusal);
      }
      if (command === 3) socket.end(this.#answer(this.state));
      if (command === 4) socket.end(this.#answer(this.pid));
      if (command === 10) {
        if (data.length !== 16 + 32 || data.readInt32LE(16 + 8) !== 2) throw new Error('not a request of this kind');
        this.waiting.push(socket);
        socket.write(this.#answer(8));
      }
    });
  }

  #answer(value: number): Buffer {
    const answer = Buffer.alloc(16);
    answer.writeInt32LE(value, 8);
    return answer;
  }
}

describe('the command socket', () => {
  let monitor: FakeMonitor | undefined;
  const signal = () => AbortSignal.timeout(3000);

  async function start(): Promise<FakeMonitor> {
    monitor = await new FakeMonitor().listen();
    return monitor;
  }

  afterEach(() => monitor?.end());

  it('asks for the state and for init', async () => {
    const { path } = await start();

    expect(await askState(path, signal())).toBe('running');
    expect(await askInitPid(path, signal())).toBe(4711);
  });

  it('asks again when the monitor does not know it yet', async () => {
    const one = await start();

    one.refusals = 2;
    expect(await askInitPid(one.path, signal())).toBe(4711);
    one.refusals = 2;
    expect(await askState(one.path, signal())).toBe('running');
  });

  it('does not take a refusal for the end of the container', async () => {
    const one = await start();
    one.refusals = 1;

    await expect(awaitExit(one.path, signal())).rejects.toThrow('refuses to be watched');
  });

  it('takes silence of nobody for stopped', async () => {
    const path = `\0test-${randomUUID()}`;

    expect(await askState(path, signal())).toBeUndefined();
    expect(await awaitExit(path, signal())).toBe('stopped');
    await sendStop(path, signal());
  });

  it('hears of a reboot', async () => {
    const one = await start();

    const exit = awaitExit(one.path, signal());
    await expect.poll(() => one.waiting.length).toBe(1);
    one.reboot();

    expect(await exit).toBe('rebooted');
  });

  it('hears of the end', async () => {
    const one = await start();

    const exit = awaitExit(one.path, signal());
    await expect.poll(() => one.waiting.length).toBe(1);
    one.end();

    expect(await exit).toBe('stopped');
  });

  it('gives up waiting when told to', async () => {
    const one = await start();
    const caller = new AbortController();

    const exit = awaitExit(one.path, caller.signal);
    await expect.poll(() => one.waiting.length).toBe(1);
    caller.abort(new Error('enough'));

    await expect(exit).rejects.toThrow('enough');
  });

  it('hands over a stop without waiting for an answer', async () => {
    const one = await start();

    await sendStop(one.path, signal());

    await expect.poll(() => one.requests).toEqual([2]);
  });

  it('hashes addresses that are too long, as liblxc does', () => {
    expect(commandSocketPath('/var/lib/x/containers', 'c1')).toBe('\0/var/lib/x/containers/c1/command');
    expect(commandSocketPath('/'.padEnd(120, 'a'), 'c1')).toMatch(/^\0lxc\/[0-9a-f]{16}\/command$/);
  });
});

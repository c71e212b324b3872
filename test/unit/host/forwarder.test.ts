// The daemon's end of the forward server, where the server dies at a bad moment.
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { expect, it } from 'vitest';
import { Forwarder } from '#src/host/forwarding/forwarder.ts';
import {
  CONTROL_SOCKET,
  FORWARD_VERSION,
  type ForwardRequest,
  type ForwardSpec,
} from '#src/host/forwarding/messages.ts';
import { silentLog } from '#src/lib/log.ts';

const SPEC = { id: 'one', initPid: 1 } as ForwardSpec;

it('outlives a server that is killed over a request, and asks the next one', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'lighter-forwarder-'));
  const asked: ForwardRequest[] = [];
  let connections = 0;
  const server = createServer({ pauseOnConnect: true }, (socket) => {
    connections += 1;
    // what it was sent and has not read makes the kernel reset the connection
    if (connections === 1) return void setTimeout(() => socket.destroy(), 50);
    socket.resume();
    createInterface({ input: socket }).on('line', (line) => {
      const request = JSON.parse(line) as ForwardRequest;
      asked.push(request);
      socket.write(`${JSON.stringify(request.ask === 'version' ? { version: FORWARD_VERSION } : {})}\n`);
    });
  });
  await new Promise<void>((resolve) => server.listen(join(directory, CONTROL_SOCKET), resolve));
  try {
    await new Forwarder({ directory, log: silentLog }).add(SPEC);

    expect(asked).toEqual([{ ask: 'version' }, { ask: 'add', spec: SPEC }]);
    expect(connections).toBe(2);
  } finally {
    server.close();
    await rm(directory, { recursive: true, force: true });
  }
});

// The containers of the lab's engine, stopped before the lab goes down.
import { join } from 'node:path';
import { request } from 'node:http';

/** PUT /1.0/instances: force-stops all, in one request; the data stays. */
export async function stopContainers(engineFolder: string): Promise<void> {
  const operation = await ask(engineFolder, 'PUT', '/1.0/instances', {
    state: { action: 'stop', force: true, timeout: 0 },
  });
  const { operation: path } = operation as { operation?: string };
  if (path) await ask(engineFolder, 'GET', `${path}/wait?timeout=60`);
}

async function ask(engineFolder: string, method: string, path: string, body?: unknown): Promise<unknown> {
  return await new Promise((resolve, reject) => {
    const socketPath = join(engineFolder, 'unix.socket');
    const headers = { 'content-type': 'application/json' };
    const asked = request({ socketPath, path, method, headers, timeout: 90_000 }, (response) => {
      let text = '';
      response.on('data', (chunk) => {
        text += String(chunk);
      });
      response.on('end', () => resolve(JSON.parse(text)));
    });
    asked.on('error', reject).end(body === undefined ? undefined : JSON.stringify(body));
  });
}

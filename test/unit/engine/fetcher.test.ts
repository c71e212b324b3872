import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import { afterEach, expect, it } from 'vitest';
import { ImageFetcher } from '#src/engine/images/sources/fetcher.ts';

let server: Server | undefined;
afterEach(() => server?.close());

async function serve(listener: RequestListener): Promise<string> {
  server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
}

const soon = () => AbortSignal.timeout(10_000);

async function all(chunks: AsyncIterable<Buffer>): Promise<string> {
  const list: Buffer[] = [];
  for await (const chunk of chunks) list.push(chunk);
  return Buffer.concat(list).toString();
}

it('asks through the proxy, with its name', async () => {
  const seen: unknown[] = [];
  const proxy = await serve(({ url, headers }, response) => {
    seen.push([url, headers['user-agent']]);
    response.end('from the proxy');
  });
  const fetcher = new ImageFetcher(() => new URL(proxy), 'LXD test');

  expect(await fetcher.text('http://images.example/streams/v1/index.json', { signal: soon() })).toBe('from the proxy');

  expect(seen).toEqual([['http://images.example/streams/v1/index.json', 'LXD test']]);
});

it('follows redirects, and takes up a download that breaks', async () => {
  let broken = false;
  const origin = await serve(({ url, headers }, response) => {
    if (url === '/old') return void response.writeHead(302, { location: '/new' }).end();
    const start = Number(/bytes=(\d+)-/u.exec(headers.range ?? '')?.[1] ?? 0);
    response.writeHead(start > 0 ? 206 : 200, { 'content-length': 10 - start });
    if (start > 0 || broken) return void response.end('0123456789'.slice(start));
    broken = true;
    response.write('0123', () => response.destroy());
  });
  const fetcher = new ImageFetcher(() => undefined, 'LXD test');

  expect(await all(fetcher.download(`${origin}/old`, { signal: soon() }))).toBe('0123456789');
});

it('does not take the beginning of a file for its rest', async () => {
  const origin = await serve((_request, response) => {
    response.writeHead(200, { 'content-length': 10 });
    response.write('0123', () => response.destroy());
  });
  const fetcher = new ImageFetcher(() => undefined, 'LXD test');

  await expect(all(fetcher.download(`${origin}/x`, { signal: soon() }))).rejects.toThrow('cannot be resumed');
});

it('says which server it cannot reach, and gives up when nobody wants it any more', async () => {
  const fetcher = new ImageFetcher(() => undefined, 'LXD test');
  const origin = await serve(() => undefined);

  await expect(fetcher.text('http://127.0.0.1:1/x', { signal: soon() })).rejects.toThrow(
    'Unable to connect to: 127.0.0.1:1',
  );
  await expect(fetcher.text(origin, { signal: AbortSignal.timeout(50) })).rejects.toThrow('timeout');
  server?.closeAllConnections();
});

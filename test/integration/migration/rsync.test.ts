// rsync through a pair of websockets, both halves on this machine.
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { Channel } from '#src/engine/migration/channel.ts';
import { rsyncReceive, rsyncSend } from '#src/engine/migration/rsync.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { describeWith } from '../support.ts';

/** And what breaks their connection. */
async function channelPair(): Promise<readonly [Channel, Channel, () => void]> {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1' });
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[WebSocket]>;
  const dialled = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const [socket] = await accepted;
  const pair = [new Channel(socket), new Channel(dialled), () => socket.terminate()] as const;
  await once(dialled, 'open').catch(() => undefined);
  server.close();
  return pair;
}

describeWith({ commands: ['rsync'] }, 'rsync over a channel', () => {
  const host = new LinuxHost();

  it('sends several trees one after another, and deletes what is gone', async () => {
    const work = await mkdtemp(join(tmpdir(), 'tunnel-'));
    try {
      await mkdir(join(work, 'from/rootfs/etc'), { recursive: true });
      await mkdir(join(work, 'to'));
      await writeFile(join(work, 'from/rootfs/etc/big'), Buffer.alloc(3 << 20, 'x'));
      await symlink('/nowhere', join(work, 'from/rootfs/link'));
      await writeFile(join(work, 'from/metadata.yaml'), 'a: b\n');
      const [one, other] = await channelPair();
      const features = { delete: true, xattrs: true };
      const signal = AbortSignal.timeout(20_000);
      const sources = [join(work, 'from/metadata.yaml'), join(work, 'from/rootfs')];
      let sent = 0;

      const pass = () =>
        Promise.all([
          rsyncSend({ host, channel: one, features, signal, progress: (bytes) => (sent = bytes) }, sources),
          rsyncReceive({ host, channel: other, features, signal }, join(work, 'to')),
        ]);
      await pass();
      await rm(join(work, 'from/rootfs/link'));
      await pass();

      expect((await stat(join(work, 'to/rootfs/etc/big'))).size).toBe(3 << 20);
      expect(await readdir(join(work, 'to/rootfs'))).toEqual(['etc']);
      expect(await readFile(join(work, 'to/metadata.yaml'), 'utf8')).toBe('a: b\n');
      expect(sent).toBeGreaterThan(0);
      one[Symbol.dispose]();
      other[Symbol.dispose]();
    } finally {
      await rm(work, { recursive: true });
    }
  });

  it('fails on both ends when one of them cannot go on', async () => {
    const [one, other] = await channelPair();
    const signal = AbortSignal.timeout(20_000);

    const ends = await Promise.allSettled([
      rsyncSend({ host, channel: one, features: {}, signal }, ['/proc/version']).finally(() => one[Symbol.dispose]()),
      rsyncReceive({ host, channel: other, features: {}, signal }, '/proc/nothing').finally(() => {
        other[Symbol.dispose]();
      }),
    ]);

    expect(ends.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    expect(String((ends[1] as PromiseRejectedResult).reason)).toContain('/proc/nothing');
  });

  it('ends on both ends when their connection breaks', async () => {
    const work = await mkdtemp(join(tmpdir(), 'tunnel-'));
    try {
      await mkdir(join(work, 'to'));
      await writeFile(join(work, 'big'), Buffer.alloc(64 << 20, 'x'));
      const [one, other, breakOff] = await channelPair();
      const never = new AbortController().signal;
      const job = { host, features: {}, signal: never };
      const progress = (bytes: number): void => {
        if (bytes > 1 << 20) breakOff();
      };

      const ends = await Promise.allSettled([
        rsyncSend({ ...job, channel: one }, [join(work, 'big')]),
        rsyncReceive({ ...job, channel: other, progress }, join(work, 'to')),
      ]);

      expect(ends.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
      one[Symbol.dispose]();
      other[Symbol.dispose]();
    } finally {
      await rm(work, { recursive: true });
    }
  });
});

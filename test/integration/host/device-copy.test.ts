// Copies of block devices, and who has one open, on real loop devices.
import { constants } from 'node:fs';
import { mkdtemp, open, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { copyDevice } from '#src/host/device-copy.ts';
import { deviceUsers } from '#src/host/device-users.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { describeWith } from '../support.ts';

const MIB = 2 ** 20;
const host = new LinuxHost();
const signal = (): AbortSignal => AbortSignal.timeout(20_000);

describeWith({ root: true, commands: ['losetup', 'stat', 'perl'] }, 'a block device', () => {
  let folder: string;
  let from: string;
  let to: string;

  const fileOf = (name: string): string => join(folder, name);
  async function device(name: string, bytes: number): Promise<string> {
    await writeFile(fileOf(name), '');
    await truncate(fileOf(name), bytes);
    return (await host.run(['losetup', '--find', '--show', '--', fileOf(name)])).stdout.trim();
  }

  async function writeAt(path: string, position: number, text: string): Promise<void> {
    await using file = await open(path, 'r+');
    await file.write(Buffer.from(text), 0, text.length, position);
    await file.sync();
  }

  async function readAt(path: string, position: number, bytes: number): Promise<string> {
    await using file = await open(path, 'r');
    return String((await file.read(Buffer.alloc(bytes), 0, bytes, position)).buffer);
  }

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'lighter-copy-'));
    [from, to] = [await device('from', 18 * MIB), await device('to', 20 * MIB)];
  });

  afterAll(async () => {
    for (const path of [from, to]) await host.run(['losetup', '--detach', path]);
    await rm(folder, { recursive: true });
  });

  it('is copied to its end, over what was there, and takes no room for zeros', async () => {
    await writeAt(from, 5 * MIB, 'middle');
    await writeAt(from, 18 * MIB - 4, 'last');
    await writeAt(to, 0, 'stale');
    const steps: number[] = [];

    await copyDevice(from, to, {
      signal: signal(),
      onProgress: ({ copiedBytes }) => void steps.push(copiedBytes / MIB),
    });

    expect(await readAt(to, 0, 5)).toBe('\0'.repeat(5));
    expect(await readAt(to, 5 * MIB, 6)).toBe('middle');
    expect(await readAt(to, 18 * MIB - 4, 4)).toBe('last');
    expect(steps).toEqual([4, 8, 12, 16, 18]);
    // three chunks of five
    expect((await stat(fileOf('to'))).blocks * 512).toBeLessThan(14 * MIB);
  });

  it('is not copied to a smaller one, and not while somebody has it alone', async () => {
    await expect(copyDevice(to, from, { signal: signal() })).rejects.toMatchObject({ kind: 'invalid' });

    await using _mine = await open(to, constants.O_RDWR | constants.O_EXCL);
    await expect(copyDevice(from, to, { signal: signal() })).rejects.toMatchObject({ kind: 'conflict' });
  });

  it('ends to be copied when that is not wanted any more', async () => {
    const stop = new AbortController();

    const copy = copyDevice(from, to, { signal: stop.signal, onProgress: () => stop.abort(new Error('enough')) });

    await expect(copy).rejects.toThrow('enough');
  });

  it.each([
    ['open', 'open F, "<", $ARGV[0]; sleep 60'],
    [
      'mapped, and its descriptor closed',
      // mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0)
      'open F, "<", $ARGV[0]; syscall($ARGV[1], 0, 4096, 1, 1, fileno(F), 0); close F; sleep 60',
    ],
  ])('is known to be %s, by the name of the program', async (_how, script) => {
    expect(await deviceUsers(host, from, signal())).toEqual([]);
    const mmap = process.arch === 'arm64' ? '222' : '9';
    const stop = new AbortController();
    const user = host.run(['perl', '-e', script, from, mmap], { signal: stop.signal });

    await expect.poll(() => deviceUsers(host, from, signal()), { timeout: 10_000 }).toEqual(['perl']);
    expect(await deviceUsers(host, to, signal())).toEqual([]);
    stop.abort();
    await user.catch(() => {});
    expect(await deviceUsers(host, from, signal())).toEqual([]);
  });
});

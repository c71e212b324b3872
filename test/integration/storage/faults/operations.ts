// The operations that are cut off: each with what it needs, the request, and the way back.
import type { FaultDriver, FaultMachine } from './machine.ts';

export interface FaultOperation {
  readonly name: string;
  readonly drivers?: readonly FaultDriver[];
  /** Once; what is there stays as it is. */
  readonly prepare?: (machine: FaultMachine) => Promise<void>;
  readonly request: (machine: FaultMachine) => Promise<unknown>;
  /** From done to not done. */
  readonly back: (machine: FaultMachine) => Promise<unknown>;
  /** What else tells done from not done. */
  readonly look?: (machine: FaultMachine) => Promise<string>;
  /** Undoes prepare(). */
  readonly end?: (machine: FaultMachine) => Promise<unknown>;
  /** What was cut off is neither done nor undone, and the same request finishes it. */
  readonly resumable?: boolean;
}

const I = '/1.0/instances';
const V = '/1.0/storage-pools/p/volumes/custom';
const FILE_HEADERS = {
  'content-type': 'application/octet-stream',
  'x-lxd-type': 'file',
  'x-lxd-uid': '0',
  'x-lxd-gid': '0',
};

type Work = (machine: FaultMachine) => Promise<unknown>;

const fromImage =
  (name: string, more: object = {}): Work =>
  (m) =>
    m.operate('POST', I, { name, source: { type: 'image', alias: 'bb' }, ...more });
const remove =
  (path: string): Work =>
  (m) =>
    m.operate('DELETE', path);
const copyOf =
  (source: string, name: string, more: object = {}): Work =>
  (m) =>
    m.operate('POST', I, { name, source: { type: 'copy', source, ...more } });
const snapshot =
  (name: string, of = `${I}/c1`): Work =>
  (m) =>
    m.operate('POST', `${of}/snapshots`, { name });
const rename =
  (path: string, name: string, more: object = {}): Work =>
  (m) =>
    m.operate('POST', path, { name, ...more });
/** At once, without asking init. */
const power =
  (action: string): Work =>
  (m) =>
    m.operate('PUT', `${I}/c1/state`, { action, force: action !== 'start' });
const write =
  (text: string): Work =>
  (m) =>
    m.operate('POST', `${I}/c1/files?path=/root/f`, Buffer.from(text), FILE_HEADERS);
const readOf =
  (...names: readonly string[]) =>
  async (m: FaultMachine): Promise<string> => {
    const answers = await Promise.all(names.map((name) => m.daemon.call('GET', `${I}/${name}/files?path=/root/f`)));
    return answers
      .filter(({ status }) => status === 200)
      .map(({ text }) => text)
      .join();
  };
const read = readOf('c1');
const volume =
  (name: string, more: object = {}): Work =>
  (m) =>
    m.operate('POST', V, { name, config: {}, ...more });
const device =
  (name: string, devices: object): Work =>
  (m) =>
    m.operate('PATCH', `${I}/${name}`, { devices });
const all =
  (...works: readonly Work[]): ((m: FaultMachine) => Promise<void>) =>
  async (m) => {
    for (const work of works) await work(m);
  };
const withoutDevice =
  (name: string, key: string): Work =>
  async (m) => {
    const { metadata } = await m.daemon.call('GET', `${I}/${name}`);
    const { [key]: _, ...devices } = metadata.devices;
    const { config, profiles, description, ephemeral, architecture } = metadata;
    return m.operate('PUT', `${I}/${name}`, { config, profiles, description, ephemeral, architecture, devices });
  };
/** An image by its alias; the fingerprint of what is published is another each time. */
const removeImage =
  (alias: string): Work =>
  async (m) => {
    const { metadata } = await m.daemon.call('GET', `/1.0/images/aliases/${alias}`);
    await m.operate('DELETE', `/1.0/images/${metadata.target}`);
  };

const C1: Pick<FaultOperation, 'prepare' | 'end'> = {
  prepare: all(fromImage('c1'), write('one'), snapshot('s0'), write('two')),
  end: remove(`${I}/c1`),
};
/** With a volume in the container that runs; zfs-fuse's are not served by way of its files. */
async function inVolume(m: FaultMachine, pool: string, name: string, script: string): Promise<string> {
  await m.operate('PATCH', `${I}/run`, { devices: { look: { type: 'disk', pool, source: name, path: '/data' } } });
  try {
    const command = ['sh', '-c', script];
    const { metadata } = await m.operate('POST', `${I}/run/exec`, { command, 'record-output': true });
    if (metadata.return !== 0) throw new Error(`${script}: ${metadata.return}`);
    return (await m.daemon.call('GET', metadata.output['1'])).text;
  } finally {
    await withoutDevice('run', 'look')(m);
  }
}
const fill =
  (text: string): Work =>
  (m) =>
    inVolume(m, 'p', 'v1', `printf ${text} >/data/f`);
/** What is in the volumes of this name, in whichever of these pools. */
const content =
  (name: string, ...pools: readonly string[]) =>
  async (m: FaultMachine): Promise<string> => {
    const texts: string[] = [];
    for (const pool of pools) {
      const { status } = await m.daemon.call('GET', `/1.0/storage-pools/${pool}/volumes/custom/${name}`);
      if (status === 200) texts.push(await inVolume(m, pool, name, 'cat /data/f'));
    }
    return texts.join();
  };
const V1: Pick<FaultOperation, 'prepare' | 'end'> = {
  prepare: all(volume('v1'), fill('one'), snapshot('s0', `${V}/v1`), fill('two')),
  end: remove(`${V}/v1`),
};
const makePool: Work = (m) => m.operate('POST', '/1.0/storage-pools', { name: 'q', driver: 'dir', config: {} });
const V2_OF_S0 = volume('v2', { source: { type: 'copy', pool: 'p', name: 'v1/s0' } });
const exports = new WeakMap<FaultMachine, Buffer>();

/** Makes a backup, keeps its bytes, and removes it. */
const exported =
  (of: string, more: object = {}): Work =>
  async (m) => {
    await m.operate('POST', `${of}/backups`, { name: 'x', compression_algorithm: 'none', ...more });
    exports.set(m, await m.download(`${of}/backups/x/export`));
    await m.operate('DELETE', `${of}/backups/x`);
  };
const imported =
  (path: string, headers: Record<string, string>): Work =>
  (m) =>
    m.operate('POST', path, exports.get(m), { 'content-type': 'application/octet-stream', ...headers });

const MOVE_TO_Q = rename(`${I}/c1`, 'c1', { migration: true, pool: 'q' });
const MOVE_BACK = all(
  rename(`${I}/c1`, 'c1', { migration: true, pool: 'p' }),
  // The profile's is the same again.
  withoutDevice('c1', 'root'),
);

export const OPERATIONS: readonly FaultOperation[] = [
  {
    name: 'create from an image that the pool does not have',
    prepare: all(removeImage('bb'), (m) => m.upload()),
    request: fromImage('c1'),
    back: all(remove(`${I}/c1`), removeImage('bb'), (m) => m.upload()),
  },
  { name: 'create from an image', request: fromImage('c1'), back: remove(`${I}/c1`) },
  { name: 'copy of a stopped instance', ...C1, request: copyOf('c1', 'c2'), back: remove(`${I}/c2`) },
  { name: 'copy of a running instance', request: copyOf('run', 'c2'), back: remove(`${I}/c2`) },
  { name: 'copy of a snapshot', ...C1, request: copyOf('c1/s0', 'c2'), back: remove(`${I}/c2`) },
  {
    name: 'copy to another pool',
    prepare: all(makePool, C1.prepare ?? all()),
    end: all(remove(`${I}/c1`), remove('/1.0/storage-pools/q')),
    request: (m) =>
      m.operate('POST', I, {
        name: 'c2',
        source: { type: 'copy', source: 'c1' },
        devices: { root: { type: 'disk', path: '/', pool: 'q' } },
      }),
    back: remove(`${I}/c2`),
    look: readOf('c2'),
  },
  {
    name: 'refresh of a copy',
    prepare: all(C1.prepare ?? all(), copyOf('c1/s0', 'c2')),
    end: all(remove(`${I}/c2`), remove(`${I}/c1`)),
    resumable: true,
    request: (m) => m.operate('POST', I, { name: 'c2', source: { type: 'copy', source: 'c1', refresh: true } }),
    back: all(remove(`${I}/c2`), copyOf('c1/s0', 'c2')),
    look: readOf('c2'),
  },
  { name: 'snapshot', ...C1, request: snapshot('s1'), back: remove(`${I}/c1/snapshots/s1`) },
  {
    name: 'snapshot of a running instance',
    request: snapshot('s1', `${I}/run`),
    back: remove(`${I}/run/snapshots/s1`),
  },
  {
    name: 'restore',
    ...C1,
    request: (m) => m.operate('PUT', `${I}/c1`, { restore: 's0' }),
    back: write('two'),
    look: read,
  },
  {
    name: 'restore of a running instance',
    prepare: all(C1.prepare ?? all(), power('start')),
    end: all(power('stop'), remove(`${I}/c1`)),
    request: (m) => m.operate('PUT', `${I}/c1`, { restore: 's0' }),
    back: write('two'),
    look: read,
  },
  {
    name: 'restart',
    prepare: all(C1.prepare ?? all(), power('start')),
    end: all(power('stop'), remove(`${I}/c1`)),
    request: power('restart'),
    back: all(),
  },
  {
    name: 'rename',
    ...C1,
    request: rename(`${I}/c1`, 'c9'),
    back: rename(`${I}/c9`, 'c1'),
    look: readOf('c1', 'c9'),
  },
  {
    name: 'delete',
    ...C1,
    request: remove(`${I}/c1`),
    back: C1.prepare ?? all(),
  },
  {
    name: 'delete of a snapshot',
    prepare: all(C1.prepare ?? all(), snapshot('s1')),
    end: remove(`${I}/c1`),
    request: remove(`${I}/c1/snapshots/s1`),
    back: snapshot('s1'),
  },
  {
    name: 'rename of a snapshot',
    ...C1,
    request: rename(`${I}/c1/snapshots/s0`, 's9'),
    back: rename(`${I}/c1/snapshots/s9`, 's0'),
  },
  {
    name: 'start',
    ...C1,
    request: power('start'),
    back: power('stop'),
  },
  {
    name: 'stop',
    prepare: all(C1.prepare ?? all(), power('start')),
    end: all(power('stop'), remove(`${I}/c1`)),
    request: power('stop'),
    back: power('start'),
  },
  {
    name: 'rebuild',
    ...C1,
    prepare: all(fromImage('c1'), write('two')),
    request: (m) => m.operate('POST', `${I}/c1/rebuild`, { source: { type: 'image', alias: 'bb' } }),
    back: write('two'),
    look: async (m) => ((await m.daemon.call('GET', `${I}/c1/files?path=/root/f`)).status === 200 ? 'there' : 'none'),
  },
  {
    name: 'publish',
    ...C1,
    request: (m) =>
      m.operate('POST', '/1.0/images', { source: { type: 'instance', name: 'c1' }, aliases: [{ name: 'pub' }] }),
    back: removeImage('pub'),
  },
  { name: 'delete of an image', request: removeImage('bb'), back: (m) => m.upload() },
  {
    name: 'delete of an image in the pool that nobody uses',
    drivers: ['overlay', 'btrfs', 'zfs'],
    prepare: all(
      C1.prepare ?? all(),
      (m) => m.operate('POST', '/1.0/images', { source: { type: 'instance', name: 'c1' }, aliases: [{ name: 'pub' }] }),
      (m) => m.operate('POST', I, { name: 'c5', source: { type: 'image', alias: 'pub' } }),
      remove(`${I}/c5`),
    ),
    end: all(remove(`${I}/c1`)),
    request: removeImage('pub'),
    back: all(
      (m) => m.operate('POST', '/1.0/images', { source: { type: 'instance', name: 'c1' }, aliases: [{ name: 'pub' }] }),
      (m) => m.operate('POST', I, { name: 'c5', source: { type: 'image', alias: 'pub' } }),
      remove(`${I}/c5`),
    ),
  },
  {
    name: 'resize of the root',
    drivers: ['btrfs', 'zfs'],
    ...C1,
    request: device('c1', { root: { type: 'disk', path: '/', pool: 'p', size: '300MiB' } }),
    back: withoutDevice('c1', 'root'),
  },
  {
    name: 'move to another pool',
    // There and back it is a copy, no clone of the image any more.
    prepare: all(makePool, C1.prepare ?? all(), MOVE_TO_Q, MOVE_BACK),
    end: all(remove(`${I}/c1`), remove('/1.0/storage-pools/q')),
    request: MOVE_TO_Q,
    back: MOVE_BACK,
    look: read,
  },
  {
    name: 'backup',
    prepare: all(C1.prepare ?? all(), exported(`${I}/c1`)),
    end: remove(`${I}/c1`),
    request: (m) => m.operate('POST', `${I}/c1/backups`, { name: 'b0', compression_algorithm: 'none' }),
    back: remove(`${I}/c1/backups/b0`),
  },
  {
    name: 'delete of a backup',
    ...C1,
    prepare: all(C1.prepare ?? all(), (m) =>
      m.operate('POST', `${I}/c1/backups`, { name: 'b0', compression_algorithm: 'none' }),
    ),
    request: remove(`${I}/c1/backups/b0`),
    back: (m) => m.operate('POST', `${I}/c1/backups`, { name: 'b0', compression_algorithm: 'none' }),
  },
  {
    name: 'import of a backup',
    prepare: all(C1.prepare ?? all(), exported(`${I}/c1`)),
    end: remove(`${I}/c1`),
    request: imported(I, { 'x-lxd-name': 'c7' }),
    back: remove(`${I}/c7`),
  },
  { name: 'create of a volume', request: volume('v1'), back: remove(`${V}/v1`) },
  {
    name: 'copy of a volume',
    ...V1,
    request: volume('v2', { source: { type: 'copy', pool: 'p', name: 'v1' } }),
    back: remove(`${V}/v2`),
  },
  {
    name: 'copy of a volume from a snapshot',
    ...V1,
    request: V2_OF_S0,
    back: remove(`${V}/v2`),
    look: content('v2', 'p'),
  },
  {
    name: 'copy of a volume to another pool',
    prepare: all(makePool, V1.prepare ?? all()),
    end: all(remove(`${V}/v1`), remove('/1.0/storage-pools/q')),
    request: (m) =>
      m.operate('POST', '/1.0/storage-pools/q/volumes/custom', {
        name: 'v2',
        source: { type: 'copy', pool: 'p', name: 'v1' },
      }),
    back: remove('/1.0/storage-pools/q/volumes/custom/v2'),
    look: content('v2', 'q'),
  },
  {
    name: 'refresh of a volume',
    prepare: all(V1.prepare ?? all(), V2_OF_S0),
    end: all(remove(`${V}/v2`), remove(`${V}/v1`)),
    resumable: true,
    request: volume('v2', { source: { type: 'copy', pool: 'p', name: 'v1', refresh: true } }),
    back: all(remove(`${V}/v2`), V2_OF_S0),
    look: content('v2', 'p'),
  },
  { name: 'rename of a volume', ...V1, request: rename(`${V}/v1`, 'v9'), back: rename(`${V}/v9`, 'v1') },
  { name: 'delete of a volume', ...V1, request: remove(`${V}/v1`), back: V1.prepare ?? all() },
  { name: 'snapshot of a volume', ...V1, request: snapshot('s1', `${V}/v1`), back: remove(`${V}/v1/snapshots/s1`) },
  {
    name: 'rename of a snapshot of a volume',
    ...V1,
    request: rename(`${V}/v1/snapshots/s0`, 's9'),
    back: rename(`${V}/v1/snapshots/s9`, 's0'),
  },
  {
    name: 'delete of a snapshot of a volume',
    prepare: all(V1.prepare ?? all(), snapshot('s1', `${V}/v1`)),
    end: remove(`${V}/v1`),
    request: remove(`${V}/v1/snapshots/s1`),
    back: snapshot('s1', `${V}/v1`),
  },
  {
    name: 'restore of a volume',
    ...V1,
    request: (m) => m.operate('PUT', `${V}/v1`, { restore: 's0' }),
    back: fill('two'),
    look: content('v1', 'p'),
  },
  {
    name: 'backup of a volume',
    // The folder of all backups stays.
    prepare: all(V1.prepare ?? all(), exported(`${V}/v1`)),
    end: remove(`${V}/v1`),
    request: (m) => m.operate('POST', `${V}/v1/backups`, { name: 'b0', compression_algorithm: 'none' }),
    back: remove(`${V}/v1/backups/b0`),
  },
  {
    name: 'import of a volume',
    prepare: all(V1.prepare ?? all(), exported(`${V}/v1`)),
    end: remove(`${V}/v1`),
    request: imported(V, { 'x-lxd-name': 'v7' }),
    back: remove(`${V}/v7`),
  },
  {
    name: 'attach of a volume',
    ...V1,
    request: device('run', { data: { type: 'disk', pool: 'p', source: 'v1', path: '/data' } }),
    back: withoutDevice('run', 'data'),
  },
  {
    name: 'detach of a volume',
    prepare: all(
      V1.prepare ?? all(),
      device('run', { data: { type: 'disk', pool: 'p', source: 'v1', path: '/data' } }),
    ),
    end: all(withoutDevice('run', 'data'), remove(`${V}/v1`)),
    request: withoutDevice('run', 'data'),
    back: device('run', { data: { type: 'disk', pool: 'p', source: 'v1', path: '/data' } }),
  },
  {
    name: 'import of an optimised backup',
    drivers: ['btrfs', 'zfs'],
    prepare: all(C1.prepare ?? all(), exported(`${I}/c1`, { optimized_storage: true })),
    end: remove(`${I}/c1`),
    request: imported(I, { 'x-lxd-name': 'c7' }),
    back: remove(`${I}/c7`),
    look: readOf('c7'),
  },
  {
    name: 'resize of a volume',
    drivers: ['btrfs', 'zfs'],
    ...V1,
    request: (m) => m.operate('PATCH', `${V}/v1`, { config: { size: '100MiB' } }),
    back: (m) => m.operate('PUT', `${V}/v1`, { description: '', config: {} }),
  },
  {
    name: 'move of a volume to another pool',
    prepare: all(makePool, V1.prepare ?? all()),
    end: all(remove(`${V}/v1`), remove('/1.0/storage-pools/q')),
    request: rename(`${V}/v1`, 'v1', { pool: 'q' }),
    back: rename('/1.0/storage-pools/q/volumes/custom/v1', 'v1', { pool: 'p' }),
    look: content('v1', 'p', 'q'),
  },
  {
    name: 'create of a pool',
    request: (m) => m.operate('POST', '/1.0/storage-pools', { name: 'q', ...m.newPool('q') }),
    back: remove('/1.0/storage-pools/q'),
  },
  {
    name: 'delete of a pool',
    prepare: (m) => m.operate('POST', '/1.0/storage-pools', { name: 'q', ...m.newPool('q') }),
    end: remove('/1.0/storage-pools/q'),
    request: remove('/1.0/storage-pools/q'),
    back: (m) => m.operate('POST', '/1.0/storage-pools', { name: 'q', ...m.newPool('q') }),
  },
];

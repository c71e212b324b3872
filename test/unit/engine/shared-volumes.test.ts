// Custom volumes as disks of instances, on a file system whose ids the kernel cannot map and on one where it can.
import { describe, expect, it } from 'vitest';
import type { MountedRoot } from '#drivers/storage/driver.ts';
import { idMapKey, type IdMapRange } from '#src/host/id-map.ts';
import { SharedVolumes, type SharingParts } from '#src/engine/volumes/shared-volumes.ts';
import { isUnsettled, toldOwners, withoutOwners } from '#src/engine/volumes/volume-owners.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import type { ConfigMap } from '#src/engine/types.ts';

const A: IdMapRange = { uidBase: 1_000_000, gidBase: 1_000_000, size: 65_536 };
const B: IdMapRange = { uidBase: 2_000_000, gidBase: 2_000_000, size: 65_536 };
const signal = AbortSignal.timeout(10_000);
const tick = () => new Promise<void>((resolve) => setImmediate(resolve));

class World {
  owners: IdMapRange | null = null;
  canMap = false;
  fails = false;
  readonly changes: string[] = [];
  readonly running = new Set<string>();
  volume = { id: 9, pool: 'p', project: 'default', name: 'v', hostName: 'v', description: '', config: {} as ConfigMap };
  readonly #names = ['c1', 'c2', 'c3'];
  readonly #instances = this.#names.map((name, id) => ({
    id,
    name,
    project: 'default',
    profiles: [],
    config: {},
    devices: { data: { type: 'disk', pool: 'p', source: 'v', path: '/data' } },
  }));
  readonly #locks = new KeyedLock();
  readonly shared = new SharedVolumes({
    context: {
      locks: this.#locks,
      host: { mounts: { canMapIds: async () => this.canMap } },
      pools: { driver: () => ({ mountVolume: (ref: object, map: IdMapRange | null) => this.#mount(ref, map) }) },
      volumes: {
        holder: (project: string) => project,
        get: () => this.volume,
        locked: (_key: unknown, limit: AbortSignal, work: () => Promise<unknown>) =>
          this.#locks.run('volume', work, limit),
      },
      database: {
        volumes: {
          find: () => this.volume,
          update: (_id: number, { config }: { readonly config: ConfigMap }) => {
            this.volume = { ...this.volume, config };
          },
        },
        instances: { list: () => this.#instances },
        profiles: { list: () => [], listAll: () => [], find: () => undefined },
        projects: { find: () => ({ config: {} }), holder: (_feature: string, project: string) => project },
        server: { config: () => ({}) },
      },
    },
    isRunning: (id: number) => this.running.has(this.#names[id] ?? ''),
  } as unknown as SharingParts);

  async #mount(ref: { readonly forReading?: boolean }, map: IdMapRange | null): Promise<MountedRoot> {
    await tick();
    if (ref.forReading !== true) {
      const wanted = this.canMap ? null : map;
      if (idMapKey(this.owners) !== idMapKey(wanted)) this.changes.push(`${idMapKey(this.owners)}>${idMapKey(wanted)}`);
      await tick();
      if (this.fails) throw new Error('no space');
      this.owners = wanted;
    }
    return { rootfsPath: '/v', owners: this.owners };
  }

  open(instance: string, map: IdMapRange | null) {
    return this.shared.open({ project: 'default', instance, pool: 'p', name: 'v' }, map, signal);
  }

  close(instance: string) {
    return this.shared.close({ project: 'default', instance, pool: 'p', name: 'v' });
  }
}

describe('a custom volume', () => {
  it('is mapped by whoever mounts it where that can be done', async () => {
    const world = new World();
    world.canMap = true;

    expect(await world.open('c1', A)).toEqual({ path: '/v', idMap: A });
    expect(await world.open('c2', null)).toEqual({ path: '/v', idMap: null });
    expect(world.changes).toEqual([]);
    expect(world.volume.config).toEqual({});
  });

  it('is given to a map once, when several containers of it start at the same time', async () => {
    const world = new World();

    const opened = await Promise.all(['c1', 'c2', 'c3'].map((name) => world.open(name, A)));

    expect(opened).toEqual(opened.map(() => ({ path: '/v', idMap: null })));
    expect(world.changes).toEqual(['host>1000000-1000000-65536']);
    expect(toldOwners(world.volume.config)).toEqual(A);
    expect(isUnsettled(world.volume.config)).toBe(false);
  });

  it('goes to one of two that start at the same time with different maps', async () => {
    const world = new World();

    const ends = await Promise.allSettled([world.open('c1', A), world.open('c2', B)]);

    expect(ends.filter(({ status }) => status === 'rejected')).toMatchObject([
      { reason: { message: expect.stringContaining('and storage volume "v" are not identical') as string } },
    ]);
    expect(world.changes).toHaveLength(1);
  });

  it('is refused while a running container has it with another map, known from before or not', async () => {
    const world = new World();
    world.owners = A;
    world.running.add('c1');

    await expect(world.open('c2', B)).rejects.toThrow(
      'Idmaps of container "c1" and storage volume "v" are not identical',
    );
    await expect(world.open('c2', null)).rejects.toThrow('not identical');
    expect(await world.open('c2', A)).toEqual({ path: '/v', idMap: null });
    world.running.clear();
    await world.close('c2');
    expect(await world.open('c2', B)).toEqual({ path: '/v', idMap: null });
    expect(world.owners).toEqual(B);
  });

  it('is unsettled after a change that failed, and belongs to nobody', async () => {
    const world = new World();
    world.owners = A;
    world.fails = true;

    await expect(world.open('c1', B)).rejects.toThrow('no space');
    expect(isUnsettled(world.volume.config)).toBe(true);
    world.fails = false;

    expect(await world.open('c2', A)).toEqual({ path: '/v', idMap: null });
  });

  it('is left alone when it is unmapped', async () => {
    const world = new World();
    world.owners = A;
    world.volume.config = { 'security.unmapped': 'true' };

    expect(await world.open('c1', B)).toEqual({ path: '/v', idMap: null });
    expect(world.changes).toEqual([]);
  });

  it('cannot be shared between maps where the kernel cannot map it', async () => {
    const world = new World();
    world.owners = A;
    world.volume.config = { 'security.shifted': 'true' };

    await expect(world.open('c1', A)).rejects.toThrow(
      "idmapping abilities are required but aren't supported on system",
    );
    expect(await world.open('c1', null)).toEqual({ path: '/v', idMap: null });
    world.canMap = true;
    expect(await world.open('c2', A)).toEqual({ path: '/v', idMap: A });
  });

  it('forgets what is said of owners with the two keys', () => {
    expect(withoutOwners({ size: '1', 'volatile.idmap.last': '[]', 'volatile.idmap.next': '[]' })).toEqual({
      size: '1',
    });
  });
});

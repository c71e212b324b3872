// The root of a stopped instance as a disk of another: each of the two keeps the other from what would harm it.
import { describe, expect, it } from 'vitest';
import type { InstanceRecord } from '#src/engine/db/records.ts';
import { DiskSources, isLent, type LendingParts, refuseLent } from '#src/engine/instances/lent-roots.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';

const old = { type: 'disk', pool: 'p', source: 'container/c1', path: '/mnt/old' };
const record = (id: number, name: string, devices = {}) =>
  ({ id, name, project: 'default', pool: 'p', devices }) as unknown as InstanceRecord;
const map = { uidBase: 1, gidBase: 1, size: 2 };
const signal = AbortSignal.timeout(10_000);

class World {
  readonly c1 = record(1, 'c1');
  readonly records = [this.c1, record(2, 'c2', { old }), record(3, 'c3', { old }), record(4, 'c4')];
  readonly running = new Set<string>();
  readonly mounted = new Set<string>();
  readonly locks = new KeyedLock();
  rootfsOptions: string | undefined;
  readonly parts = {
    context: {
      locks: this.locks,
      database: {
        instances: {
          find: (_project: string, name: string) => this.records.find((one) => one.name === name),
          withSource: (_project: string, source: string) =>
            this.records.filter(({ devices }) => JSON.stringify(devices).includes(source)),
        },
      },
      pools: {
        driver: () => ({
          mountVolume: async ({ name }: { name: string }) => {
            this.mounted.add(name);
            const options = this.rootfsOptions === undefined ? {} : { rootfsOptions: this.rootfsOptions };
            return { rootfsPath: `/p/${name}`, owners: map, ...options };
          },
          unmountVolume: async ({ name }: { name: string }) => void this.mounted.delete(name),
        }),
      },
      volumes: {
        holder: (project: string) => project,
        get: () => ({ id: 9, pool: 'p', name: 'v', hostName: 'custom', config: {} }),
      },
    },
    supervisor: {
      status: (id: number) =>
        this.records.some((one) => one.id === id && this.running.has(one.name)) ? 'Running' : 'Stopped',
    },
  } as unknown as LendingParts;
  readonly sources = new DiskSources(this.parts);

  open(instance: string, name = 'container/c1', pool = 'p') {
    return this.sources.open({ project: 'default', instance, pool, name }, map, signal);
  }

  close(instance: string) {
    return this.sources.close({ project: 'default', instance, pool: 'p', name: 'container/c1' });
  }
}

describe('a disk that is the root of another instance', () => {
  it('is mounted with the ids of its user, and unmounted when that ends', async () => {
    const world = new World();

    expect(await world.open('c2')).toEqual({ path: '/p/c1', idMap: null });
    expect([...world.mounted]).toEqual(['c1']);
    world.running.add('c2');
    await world.close('c2');

    expect([...world.mounted]).toEqual([]);
  });

  it('is mapped where the pool leaves that to whoever mounts it', async () => {
    const world = new World();
    world.rootfsOptions = 'idmap=container';

    expect(await world.open('c2')).toEqual({ path: '/p/c1', idMap: map });
  });

  it.each(['running', 'busy'])('keeps its own instance from others while its user is %s', async (how) => {
    const world = new World();
    expect(() => refuseLent(world.parts, world.c1)).not.toThrow();
    if (how === 'running') world.running.add('c2');
    const { promise, resolve } = Promise.withResolvers<void>();
    const work = how === 'busy' ? world.locks.run('instance/default/c2', () => promise) : undefined;

    expect(() => refuseLent(world.parts, world.c1)).toThrow('in use by instance "c2"');
    expect(isLent(world.parts, world.c1)).toBe(true);
    await expect(world.open('c3')).rejects.toThrow('in use by "c2"');
    await world.close('c3');
    resolve();
    await work;
  });

  it('is not to be had while its own instance runs or is worked on; what that has mounted stays', async () => {
    const world = new World();
    world.mounted.add('c1');
    world.running.add('c1');
    await expect(world.open('c2')).rejects.toThrow('cannot be a disk of another');
    world.running.clear();
    await world.locks.run('instance/default/c1', async () => {
      await expect(world.open('c2')).rejects.toThrow('cannot be a disk of another');
      await world.close('c2');
    });

    expect([...world.mounted]).toEqual(['c1']);
  });

  it('must be there, in that pool', async () => {
    const world = new World();

    await expect(world.open('c2', 'container/nobody')).rejects.toMatchObject({ kind: 'not_found' });
    await expect(world.open('c2', 'container/c1', 'other')).rejects.toMatchObject({ kind: 'not_found' });
    expect(await world.open('c2', 'volume')).toEqual({ path: '/p/custom', idMap: null });
  });
});

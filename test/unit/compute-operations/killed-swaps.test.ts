// A compute that is killed while it swaps a volume, at each of its steps: what the next one makes of it.
import { describe, expect, it } from 'vitest';
import { createInstanceOperations } from '#src/compute/rpc/endpoints.ts';
import { initHost } from '#src/compute/recovery/init-host.ts';
import type { ComputeServices } from '#src/compute/types.ts';
import { KeyedLock } from '#src/lib/keyed-lock.ts';
import { RequestContext } from '#src/nova/context.ts';
import { expectObject, fromPrimitive } from '#src/nova/objects/object.ts';
import { ComputeHarness, instanceOf, object } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;
type Death = 'before' | 'after';

const signal = new AbortController().signal;
const context = RequestContext.admin();
const never = new Promise<never>(() => undefined);

/** The services of a process that asks them for nothing more once it has come to its last call. */
class Mortal {
  calls = 0;
  /** With the call at which it was. */
  readonly died = Promise.withResolvers<string>();
  readonly #last: number;
  readonly #death: Death;

  constructor(last: number, death: Death) {
    this.#last = last;
    this.#death = death;
  }

  services(all: ComputeServices): ComputeServices {
    const { conductor, virt, volumes, cinder } = all;
    const own = {
      conductor: this.#of(conductor),
      virt: this.#of(virt),
      volumes: this.#of(volumes),
      cinder: this.#of(cinder),
    };
    return { ...all, ...own, locks: new KeyedLock() };
  }

  #of<T extends object>(service: T): T {
    return new Proxy(service, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name);
        if (typeof member !== 'function') return member;
        return async (...args: readonly unknown[]) =>
          this.#call(String(name), async () => await member.apply(target, args));
      },
    });
  }

  async #call(name: string, work: () => Promise<unknown>): Promise<unknown> {
    this.calls += 1;
    if (this.calls > this.#last) return await never;
    const isLast = this.calls === this.#last;
    if (isLast && this.#death === 'before') return await this.#die(name);
    const result = await work();
    return isLast ? await this.#die(name) : result;
  }

  async #die(name: string): Promise<never> {
    this.died.resolve(name);
    return await never;
  }
}

interface World {
  readonly harness: ComputeHarness;
  readonly uuid: string;
  readonly oldId: string;
  readonly newId: string;
  swap(services: ComputeServices): Promise<void>;
}

/** A running instance with a volume, and another volume that Nova's API has reserved for it. */
async function world(harness: ComputeHarness, old: Json): Promise<World> {
  const built = instanceOf();
  await harness.build(built);
  const instance = instanceOf(harness.row(built));
  const uuid: string = instance['nova_object.data'].uuid;
  const { id: oldId } = harness.cinder.addVolume(old);
  const wish = { device: null, disk_bus: null, device_type: null, tag: 'data', multiattach: false };
  const device = (await harness.send('reserve_block_device_name', { ...wish, instance, volume_id: oldId })) as Json;
  const row = { ...device['nova_object.data'], attachment_id: harness.cinder.reserve(oldId, uuid) };
  harness.plane.blockDevices.splice(0, Number.POSITIVE_INFINITY, row);
  await harness.send('attach_volume', { instance, bdm: object('BlockDeviceMapping', '1.21', row) });
  harness.volumes.contents.set(oldId, Buffer.from('kept'));
  const { id: newId } = harness.cinder.addVolume({ sizeGib: 2 });
  const newAttachmentId = harness.cinder.reserve(newId, uuid);
  const swap = async (services: ComputeServices): Promise<void> => {
    const record = expectObject(fromPrimitive(structuredClone(instanceOf(harness.row(built)))), 'Instance');
    const volumes = { oldVolumeId: oldId, newVolumeId: newId, newAttachmentId };
    await createInstanceOperations(services).swapVolume(context, record, volumes);
  };
  return { harness, uuid, oldId, newId, swap };
}

async function restart({ services }: ComputeHarness): Promise<void> {
  const next = { ...services, locks: new KeyedLock() };
  await initHost(next, createInstanceOperations(next), context, signal);
}

/** What there is of the volumes: in the guest, on the host, in Nova's record and in Cinder. */
function stateOf({ harness, uuid, oldId, newId }: World): Json {
  const names = new Map([
    [oldId, 'old'],
    [newId, 'new'],
  ]);
  const nameOf = (id: string): string => names.get(id) ?? id;
  const [record] = harness.plane.blockDevices;
  return {
    guest: harness.virt.instances
      .get(uuid)
      ?.volumes.map(({ volumeId, guestPath }) => `${nameOf(volumeId)} ${guestPath}`),
    host: [...harness.volumes.connected.keys()].map((key) => nameOf(key.split('/')[0] ?? '')),
    record: nameOf(record?.['volume_id']),
    isMarked: String(record?.['connection_info']).includes('lightervisor_swap'),
    contents: String(harness.volumes.contents.get(harness.virt.instances.get(uuid)?.volumes[0]?.volumeId ?? '')),
    told: record?.['attachment_id'] === undefined ? null : attachedTo(harness, record, nameOf),
    cinder: [oldId, newId].map((id) => (harness.cinder.volumes.has(id) ? harness.cinder.statusOf(id) : 'gone')),
  };
}

function attachedTo({ cinder }: ComputeHarness, record: Json, nameOf: (id: string) => string): string {
  const attachment = cinder.attachments.get(record['attachment_id']);
  return attachment ? nameOf(attachment.volumeId) : 'nothing';
}

const KEPT = { isMarked: false, contents: 'kept' };
const OLD = { guest: ['old /dev/sdb'], host: ['old'], record: 'old', told: 'old', ...KEPT };
const NEW = { guest: ['new /dev/sdb'], host: ['new'], ...KEPT };
const ENDS = {
  swap: {
    before: { ...OLD, cinder: ['in-use', 'reserved'] },
    undone: { ...OLD, cinder: ['in-use', 'available'] },
    done: { ...NEW, record: 'new', told: 'new', cinder: ['available', 'in-use'] },
  },
  move: {
    before: { ...OLD, cinder: ['in-use', 'reserved'] },
    undone: { ...OLD, cinder: ['in-use', 'gone'] },
    // Cinder's name of the new one is the old one's
    done: { ...NEW, record: 'old', told: 'old', cinder: ['in-use', 'gone'] },
  },
} as const;
const FIELDS = { swap: {}, move: { migrationStatus: 'migrating' } } as const;

async function stepsOf(kind: keyof typeof FIELDS): Promise<number> {
  await using harness = new ComputeHarness();
  const own = await world(harness, FIELDS[kind]);
  const mortal = new Mortal(Number.POSITIVE_INFINITY, 'after');
  await own.swap(mortal.services(harness.services));
  expect(stateOf(own)).toEqual(ENDS[kind].done);
  return mortal.calls;
}

/** What became of a swap that was killed there, after a start; and after another one the same. */
async function endOf(kind: keyof typeof FIELDS, step: number, death: Death): Promise<string> {
  await using harness = new ComputeHarness();
  const own = await world(harness, FIELDS[kind]);
  const mortal = new Mortal(step, death);
  const ended = own.swap(mortal.services(harness.services)).then(() => 'ended');
  const at = await Promise.race([mortal.died.promise, ended]);
  await restart(harness);
  const state = stateOf(own);
  const end = Object.entries(ENDS[kind]).find(
    ([, wanted]) => JSON.stringify(wanted) === JSON.stringify(sorted(state, wanted)),
  );
  expect(end?.[0] ?? state, `killed ${death} ${at}, step ${step}`).toBeTypeOf('string');
  await restart(harness);
  expect(stateOf(own)).toEqual(state);
  return end?.[0] ?? '';
}

/** In the order of the other one's fields. */
function sorted(state: Json, like: Json): Json {
  return Object.fromEntries(Object.keys(like).map((name) => [name, state[name]]));
}

describe.each(['swap', 'move'] as const)('a compute that is killed during the %s of a volume', (kind) => {
  it.each(['before', 'after'] as const)(
    '%s each of its steps: the server has one of the two, and all agree',
    async (death) => {
      const steps = await stepsOf(kind);
      const ends: string[] = [];
      for (let step = 1; step <= steps; step += 1) ends.push(await endOf(kind, step, death));

      const order = ['before', 'undone', 'done'];
      const places = ends.map((end) => order.indexOf(end));
      expect(places).toEqual(places.toSorted((one, other) => one - other));
      expect(new Set(ends)).toEqual(new Set(order));
    },
  );
});

describe('a swap that was interrupted', () => {
  it('is undone by a hard reboot when the start could not ask Cinder', async () => {
    await using harness = new ComputeHarness();
    const own = await world(harness, {});
    const mortal = new Mortal(await copying(), 'after');
    void own.swap(mortal.services(harness.services));
    await mortal.died.promise;
    harness.cinder.failNext(/DELETE attachment/);
    await restart(harness);
    expect(stateOf(own)).toMatchObject({ ...OLD, isMarked: true, cinder: ['in-use', 'attaching'] });

    const row = Object.assign(harness.plane.instances.get(own.uuid) ?? {}, { task_state: 'rebooting_hard' });
    await harness.send('reboot_instance', { instance: instanceOf(row), block_device_info: null, reboot_type: 'HARD' });

    expect(stateOf(own)).toEqual(ENDS.swap.undone);
  });
});

/** The step at which the volume is copied. */
async function copying(): Promise<number> {
  await using harness = new ComputeHarness();
  const own = await world(harness, {});
  const mortal = new Mortal(Number.POSITIVE_INFINITY, 'after');
  let step = 0;
  harness.volumes.onCopy = () => {
    step = mortal.calls;
  };
  await own.swap(mortal.services(harness.services));
  return step;
}

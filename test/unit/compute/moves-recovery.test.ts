// What a start does about moves that a killed process left half done.
import { describe, expect, it, vi } from 'vitest';
import { SOURCE, TARGET, TwoComputes } from '#test/fakes/moving.ts';
import type { ComputeHarness } from '#test/fakes/compute-harness.ts';
import { giveUpArrivals } from '#src/compute/recovery/interrupted-arrivals.ts';
import { recoverMove, recoverMoves } from '#src/compute/recovery/interrupted-moves.ts';
import { movePlan, type MoveView } from '#src/compute/recovery/move-plan.ts';
import { removeStrays } from '#src/compute/recovery/stray-guests.ts';
import { RequestContext } from '#src/nova/context.ts';
import { expectObject, fromPrimitive } from '#src/nova/objects/object.ts';

type Json = Readonly<Record<string, any>>;

const VIEW: MoveView = {
  status: null,
  isEvacuation: false,
  source: 'a',
  destination: 'b',
  own: 'a',
  place: 'a',
  taskState: null,
  vmState: 'active',
};

describe('the plan', () => {
  it.each([
    ['pre-migrating', { own: 'b', taskState: 'resize_prep' }, 'give up'],
    ['pre-migrating', { own: 'b', taskState: null }, 'give up'],
    ['pre-migrating', { own: 'b', taskState: 'resize_migrating' }, null],
    ['pre-migrating', { own: 'a', taskState: null }, 'give up'],
    ['pre-migrating', { own: 'a', place: 'b', taskState: null }, null],
    ['migrating', { own: 'a', taskState: null }, 'give up'],
    ['migrating', { own: 'a', taskState: 'resize_migrating' }, null],
    ['migrating', { own: 'b', taskState: 'resize_migrating' }, null],
    ['post-migrating', { own: 'b', place: 'b', taskState: 'resize_migrated' }, 'finish'],
    ['post-migrating', { own: 'b', place: 'b', taskState: 'resize_finish' }, 'finish'],
    ['post-migrating', { own: 'a', place: 'b', taskState: 'resize_migrated' }, 'pass on'],
    ['post-migrating', { own: 'a', place: 'b', taskState: 'resize_finish' }, null],
    ['finished', { own: 'b', place: 'b', taskState: 'resize_finish' }, 'finish'],
    ['finished', { own: 'b', place: 'b', taskState: null, vmState: 'resized' }, null],
    ['confirming', { own: 'a', place: 'b', vmState: 'resized' }, 'confirm'],
    ['confirming', { own: 'b', place: 'b', vmState: 'resized' }, null],
    ['reverting', { own: 'b', place: 'b', taskState: 'resize_reverting' }, 'revert'],
    ['reverting', { own: 'a', place: 'b', taskState: 'resize_reverting' }, null],
    ['reverted', { own: 'b', place: 'b', taskState: 'resize_reverting' }, 'revert'],
    ['reverted', { own: 'a', place: 'b', taskState: 'resize_reverting' }, 'finish revert'],
    ['reverted', { own: 'a', place: 'a', taskState: 'resize_reverting' }, 'finish revert'],
    ['reverted', { own: 'a', place: 'a', taskState: null }, null],
    ['error', { own: 'a', taskState: null }, null],
  ])('of a move that is %s, %j, is %s', (status, fields, step) => {
    expect(movePlan({ ...VIEW, status, ...fields })).toBe(step);
  });

  it.each([
    [{ own: 'b', taskState: 'rebuild_spawning' }, 'fail evacuation'],
    [{ own: 'b', taskState: null, vmState: 'active' }, 'finish evacuation'],
    [{ own: 'b', taskState: null, vmState: 'error' }, null],
    [{ own: 'a', taskState: 'rebuilding' }, null],
  ])('of an evacuation, %j, is %s', (fields, step) => {
    expect(movePlan({ ...VIEW, isEvacuation: true, status: 'pre-migrating', ...fields })).toBe(step);
  });
});

const signal = (): AbortSignal => AbortSignal.timeout(5000);

/** What a start of that compute does about moves. */
async function restart({ services, operations }: ComputeHarness, host: string): Promise<void> {
  const { conductor, log, virt, locks } = services;
  const asking = { conductor, context: RequestContext.admin() };
  const parts = { asking, operations, log, host };
  await recoverMoves(parts, [], signal());
  const recover: Parameters<typeof removeStrays>[0]['recover'] = (move, limit) => recoverMove(parts, move, limit);
  await removeStrays({ ...parts, virt, locks, recover }, signal());
}

const onlyCast = ({ plane }: TwoComputes): Json => plane.casts[0] ?? {};

describe('a start', () => {
  it('of the destination finishes what it had begun, and the late message does no harm', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    await computes.move(instance, { steps: 1 });
    const late = onlyCast(computes);
    computes.source.row(instance)['task_state'] = 'resize_finish';

    await restart(computes.target, TARGET);
    await computes.target.send(late['method'], late['args']);

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'resized', task_state: null, host: TARGET });
    expect(computes.guests(instance)).toMatchObject([{ powerState: 4 }, { powerState: 1, isArriving: false }]);
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'finished' });
    expect(computes.plane.faults).toEqual([]);
  });

  it('of the source passes on what the destination was not told', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    await computes.move(instance, { steps: 1 });
    computes.plane.casts.length = 0;

    await restart(computes.source, SOURCE);
    await computes.deliver();

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'resized', host: TARGET });
  });

  it('of the source before the guest had left gives all of it up', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server({ task_state: 'resize_migrating' });
    computes.migration(instance, { status: 'migrating', dest_compute: TARGET });
    const { uuid } = instance['nova_object.data'];
    const guest = computes.source.virt.instances.get(uuid);
    if (guest) computes.target.virt.instances.set(uuid, { ...guest, isArriving: true });
    const stored = expectObject(fromPrimitive(computes.stored(instance)), 'Instance');

    await computes.source.operations.abandonMove(RequestContext.admin(), stored, signal());
    await computes.deliver();

    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'error' });
    expect(computes.consumers).toEqual(new Set([uuid]));
    expect(computes.guests(instance)).toMatchObject([{}, undefined]);
  });

  it('of the destination that had claimed but not told the source gives the move up', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    computes.migration(instance, { status: 'pre-migrating', dest_compute: TARGET });

    await restart(computes.target, TARGET);

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, host: SOURCE });
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'error' });
    expect(computes.consumers).toEqual(new Set([instance['nova_object.data'].uuid]));
  });

  it('of the source ends a confirmation, wherever it was interrupted', async () => {
    for (const vmState of ['resized', 'active']) {
      await using computes = new TwoComputes();
      const instance = await computes.server();
      await computes.move(instance);
      Object.assign(computes.plane.migrations.get(1) ?? {}, { status: 'confirming' });
      computes.source.row(instance)['vm_state'] = vmState;

      await restart(computes.source, SOURCE);

      expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active', host: TARGET, old_flavor: null });
      expect(computes.guests(instance)).toMatchObject([undefined, { powerState: 1 }]);
      expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'confirmed' });
      expect(computes.consumers).toEqual(new Set([instance['nova_object.data'].uuid]));
    }
  });

  it.each([
    ['destination', 'reverting'],
    ['source', 'reverted'],
  ])('of the %s goes on with a revert that is %s', async (which, status) => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    await computes.move(instance);
    Object.assign(computes.plane.migrations.get(1) ?? {}, { status });
    computes.source.row(instance)['task_state'] = 'resize_reverting';
    if (which === 'source') computes.target.virt.instances.clear();

    await restart(which === 'source' ? computes.source : computes.target, which === 'source' ? SOURCE : TARGET);
    await computes.deliver();

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, host: SOURCE });
    expect(computes.guests(instance)).toMatchObject([{ powerState: 1 }, undefined]);
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'reverted' });
  });

  it('of the destination undoes an evacuation that was interrupted', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server({ task_state: 'rebuild_spawning' });
    const { uuid } = instance['nova_object.data'];
    computes.migration(instance, { status: 'pre-migrating', dest_compute: TARGET, migration_type: 'evacuation' });
    const guest = computes.source.virt.instances.get(uuid);
    if (guest) computes.target.virt.instances.set(uuid, guest);

    await restart(computes.target, TARGET);

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'error', task_state: null, host: SOURCE });
    expect(computes.guests(instance)).toMatchObject([{}, undefined]);
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'failed' });
  });
});

describe('what a host had been told to take, and had not claimed', () => {
  /** What a start of that compute does when the messages that waited have been taken. */
  async function giveUp({ services, operations }: ComputeHarness, instance: Json, host: string): Promise<void> {
    const { conductor, log, locks, underWay } = services;
    const isBusy = (uuid: string): boolean => locks.isBusy(uuid) || underWay.has(uuid);
    const asking = { conductor, context: RequestContext.admin() };
    await giveUpArrivals({ asking, operations, log, host, isBusy }, [instance['nova_object.data'].uuid]);
  }

  it.each([null, 'tried-before'])('a move is given up; the destination was %s', async (destination) => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    const { uuid } = instance['nova_object.data'];
    computes.migration(instance, { status: 'pre-migrating', dest_compute: destination });

    await giveUp(computes.target, instance, TARGET);

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active', task_state: null, host: SOURCE });
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'error' });
    expect(computes.consumers).toEqual(new Set([uuid]));
    expect(computes.guests(instance)).toMatchObject([{ powerState: 1 }, undefined]);
  });

  it.each([
    ['this host has claimed', { status: 'pre-migrating', dest_compute: TARGET }, {}],
    ['the source is at', { status: 'migrating', dest_compute: TARGET }, { task_state: 'resize_migrating' }],
    ['is from here', { status: 'pre-migrating' }, { host: TARGET }],
    ['is another one', { status: 'accepted', migration_type: 'evacuation' }, {}],
    ['has been begun', { status: 'pre-migrating', migration_type: 'evacuation' }, { task_state: 'rebuilding' }],
  ])('a move that %s is left alone', async (_which, migration, fields) => {
    await using computes = new TwoComputes();
    const instance = await computes.server(fields);
    computes.migration(instance, migration);
    const before = structuredClone(computes.source.row(instance));

    await giveUp(computes.target, instance, TARGET);

    expect(computes.source.row(instance)).toEqual(before);
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: migration.status });
  });

  it('a move that a message is working on is left alone', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    const { uuid } = instance['nova_object.data'];
    computes.migration(instance, { status: 'pre-migrating' });

    await computes.target.services.locks.run(uuid, () => giveUp(computes.target, instance, TARGET));

    expect(computes.source.row(instance)).toMatchObject({ task_state: 'resize_prep' });
  });

  it('an evacuation fails, and can be asked for again', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server({ task_state: 'rebuilding' });
    computes.migration(instance, { status: 'accepted', migration_type: 'evacuation' });

    await giveUp(computes.target, instance, TARGET);

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'error', task_state: null, host: SOURCE });
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'failed' });
  });
});

describe('a guest that Nova has elsewhere', () => {
  it.each([
    ['confirmed', {}, false],
    ['error', {}, true],
    ['finished', {}, true],
    ['error', { isArriving: true }, false],
    ['migrating', { isArriving: true }, true],
  ])('by a move that is %s, %j: stays %s', async (status, fields, stays) => {
    await using computes = new TwoComputes();
    const instance = await computes.server({ host: TARGET, node: TARGET, task_state: null });
    computes.migration(instance, { status, dest_compute: TARGET });
    Object.assign(computes.guests(instance)[0] ?? {}, fields);
    const { conductor, log, virt, locks } = computes.source.services;
    const asking = { conductor, context: RequestContext.admin() };

    await removeStrays({ asking, log, virt, locks, host: SOURCE }, signal());

    expect(computes.guests(instance)[0] !== undefined).toBe(stays);
  });

  it('is not looked for among the instances of this host, which are not asked for one by one', async () => {
    await using computes = new TwoComputes();
    for (let made = 0; made < 3; made += 1) await computes.server({ host: SOURCE });
    const { conductor, log, virt, locks } = computes.source.services;
    const parts = { asking: { conductor, context: RequestContext.admin() }, log, virt, locks, host: SOURCE };
    const calls = vi.spyOn(conductor, 'classMethod');

    await removeStrays(parts, signal());
    const first = calls.mock.calls.map(([, { object, method }]) => `${object}.${method}`);
    const own = new Set((await virt.listInstances(signal())).map(({ uuid }) => uuid));
    await removeStrays({ ...parts, own }, signal());

    expect(own.size).toBe(3);
    expect(first).toEqual(['InstanceList.get_by_host']);
    expect(calls).toHaveBeenCalledTimes(1);
  });

  it("without any move is nobody's to remove", async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server({ host: TARGET });
    const { conductor, log, virt, locks } = computes.source.services;

    await removeStrays(
      { asking: { conductor, context: RequestContext.admin() }, log, virt, locks, host: SOURCE },
      signal(),
    );

    expect(computes.guests(instance)[0]).toBeDefined();
  });
});

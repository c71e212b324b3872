// Moves between two hosts: data first, then Nova's records; one guest of the two goes in the end.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { remote } from '#test/fakes/fake-control-plane.ts';
import { flavorOf, SOURCE, TARGET, TwoComputes } from '#test/fakes/moving.ts';

const uuidOf = (instance: Readonly<Record<string, any>>): string => instance['nova_object.data'].uuid;

describe('a move to another host', () => {
  it('copies the guest, starts it there with the new flavor, and keeps the old one until it is confirmed', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();

    const steps = await computes.move(instance);

    expect(steps).toEqual([`resize_instance ${SOURCE}`, `finish_resize ${TARGET}`]);
    expect(computes.source.row(instance)).toMatchObject({
      vm_state: 'resized',
      task_state: null,
      host: TARGET,
      node: TARGET,
      memory_mb: 128,
      progress: 0,
    });
    expect(computes.guests(instance)).toMatchObject([
      { powerState: 4 },
      { powerState: 1, isArriving: false, spec: { flavor: { memoryMib: 128 } }, nics: [{}] },
    ]);
    expect(computes.statuses).toEqual(['migrating', 'post-migrating', 'finished']);
    const [port] = [...computes.source.neutron.ports.values()];
    expect(port).toMatchObject({ 'binding:host_id': TARGET });
    expect(computes.consumers).toEqual(new Set([uuidOf(instance), 'mig']));
    expect(computes.source.tracker.calls).toContain('keepRoom m1');
    expect(computes.target.tracker.calls).toContain('resizeClaim');
    expect(computes.plane.events.map(({ event, result }) => `${event} ${result}`)).toEqual([
      'compute_prep_resize Success',
      'compute_resize_instance Success',
      'compute_finish_resize Success',
    ]);
  });

  it('with the same flavor is a cold migration', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();

    await computes.move(instance, { flavor: flavorOf(1) });

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'resized', host: TARGET, memory_mb: 64 });
  });

  it('leaves a stopped guest off, also when it is confirmed', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server({ vm_state: 'stopped', power_state: 4 });

    await computes.move(instance);
    expect(computes.guests(instance)).toMatchObject([{ powerState: 4 }, { powerState: 4, isArriving: false }]);
    await computes.end(instance, 'confirm_resize');

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'stopped', task_state: null, host: TARGET });
  });

  it('that is confirmed takes the guest and the allocation from the source', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    await computes.move(instance);

    await computes.end(instance, 'confirm_resize');

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active', host: TARGET, old_flavor: null });
    expect(computes.guests(instance)).toMatchObject([undefined, { powerState: 1 }]);
    expect(computes.consumers).toEqual(new Set([uuidOf(instance)]));
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'confirmed' });
    expect(computes.source.tracker.calls.at(-1)).toBe('keepRoom none');
  });

  it('that is reverted starts the old guest, with its port and its allocation', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    await computes.move(instance);

    const steps = await computes.end(instance, 'revert_resize');

    expect(steps).toEqual([`finish_revert_resize ${SOURCE}`]);
    expect(computes.source.row(instance)).toMatchObject({
      vm_state: 'active',
      task_state: null,
      host: SOURCE,
      node: SOURCE,
      memory_mb: 64,
    });
    expect(computes.guests(instance)).toMatchObject([{ powerState: 1, nics: [{}] }, undefined]);
    const [port] = [...computes.source.neutron.ports.values()];
    expect(port).toMatchObject({ 'binding:host_id': SOURCE });
    expect(computes.consumers).toEqual(new Set([uuidOf(instance)]));
    expect(computes.target.tracker.calls.at(-1)).toBe('release');
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'reverted' });
  });
});

describe('a move that fails', () => {
  const expectBack = (computes: TwoComputes, instance: Readonly<Record<string, any>>): void => {
    expect(computes.source.row(instance)).toMatchObject({
      vm_state: 'active',
      task_state: null,
      host: SOURCE,
      new_flavor: null,
    });
    expect(computes.guests(instance)).toMatchObject([{ powerState: 1 }, undefined]);
    expect(computes.consumers).toEqual(new Set([uuidOf(instance)]));
    expect(computes.plane.migrations.get(1)).toMatchObject({ status: 'error' });
    expect(computes.plane.faults).toHaveLength(1);
    expect(computes.plane.events.at(-1)).toMatchObject({ event: 'compute_resize_instance', result: 'Error' });
  };

  it('because the engine cannot be reached leaves the guest running', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    computes.source.virt.moves.refusal = new AppError('unsupported', 'the engine listens nowhere');

    await expect(computes.move(instance)).rejects.toMatchObject({ novaName: 'MigrationPreCheckError' });

    expectBack(computes, instance);
  });

  it('because the copy fails starts the guest again where it was', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    computes.target.virt.failNext('receive', new AppError('internal', 'disk full at /secret/path'));

    const failure = computes.move(instance);

    await expect(failure).rejects.toMatchObject({ novaName: 'MigrationError' });
    expectBack(computes, instance);
    expect(computes.plane.faults[0]?.['message']).toMatch(/could not be copied to fake2/);
    expect(computes.plane.faults[0]?.['message']).not.toContain('/secret');
  });

  it('because the destination is no compute of this kind says so', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    computes.plane.peers.set(TARGET, async () => {
      throw remote('UnsupportedVersion', 'Endpoint does not support RPC version 1.0.');
    });

    await expect(computes.move(instance)).rejects.toThrow('another kind of compute');

    expectBack(computes, instance);
  });

  it('when Nova cannot be told has the copy removed', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    const refused = () => {
      throw remote('SomeDatabaseError', 'no');
    };
    const move = computes.move(instance, { steps: 0 });
    await move;
    const { plane } = computes;
    plane.next('Instance.save', () => ({})); // resize_migrating
    plane.next('Instance.save', refused);
    computes.source.row(instance)['task_state'] = 'resize_migrating';

    await expect(computes.deliver()).rejects.toThrow();

    expect(computes.guests(instance)).toMatchObject([{ powerState: 1 }, { isArriving: true, powerState: 4 }]);
    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'active', host: SOURCE });
    expect(await computes.deliver()).toEqual([`discard_guest ${TARGET}`]);
    expect(computes.guests(instance)).toMatchObject([{ powerState: 1 }, undefined]);
  });

  it('at the destination is in error there, charged for one flavor, with the old guest kept', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    computes.target.virt.failNext('powerOn', new AppError('internal', 'no'));

    await expect(computes.move(instance)).rejects.toThrow();

    expect(computes.source.row(instance)).toMatchObject({ vm_state: 'error', task_state: null, host: TARGET });
    expect(computes.guests(instance)).toMatchObject([{ powerState: 4 }, { powerState: 4 }]);
    expect(computes.consumers).toEqual(new Set([uuidOf(instance)]));
  });

  it('is given up when the instance is deleted meanwhile', async () => {
    await using computes = new TwoComputes();
    const instance = await computes.server();
    await computes.move(instance, { steps: 0 });
    const calling = Promise.withResolvers<void>();
    computes.plane.peers.set(TARGET, async () => {
      calling.resolve();
      return await new Promise(() => undefined);
    });
    const call = computes.plane.call.bind(computes.plane);
    computes.plane.call = async (request, ...options: readonly { readonly signal?: AbortSignal }[]) => {
      const signal = options[0]?.signal;
      if (request.method !== 'receive_guest' || !signal) return await call(request);
      const aborted = new Promise<never>((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error), { once: true });
      });
      return await Promise.race([call(request), aborted]);
    };
    const moving = computes.deliver().catch((error: unknown) => error);
    await calling.promise;
    computes.source.row(instance)['task_state'] = 'deleting';

    await computes.source.send('terminate_instance', { instance: computes.stored(instance), bdms: [] });

    expect(await moving).toBeInstanceOf(Error);
    expect(computes.guests(instance)).toEqual([undefined, undefined]);
    expect(computes.plane.instances.has(uuidOf(instance))).toBe(false);
  });
});

describe('receive_guest', () => {
  it.each([
    ['for a move to another host', { dest_compute: 'fake3' }],
    ['for a move that is over', { status: 'error' }],
    ['for an evacuation', { migration_type: 'evacuation' }],
    ['from a host that has not got the instance', { source_compute: 'fake4' }],
  ])('is refused %s', async (_what, fields) => {
    await using computes = new TwoComputes();
    const instance = await computes.server({ task_state: 'resize_migrating' });
    computes.migration(instance, { status: 'migrating', dest_compute: TARGET, ...fields });
    const endpoint = computes.target.endpoints.find(({ namespace }) => namespace === 'lightervisor');

    const answer = endpoint?.methods['receive_guest']?.(
      { is_admin: true, request_id: 'req-1' },
      { migration_id: 1, ticket: { offer: 'x' } },
      AbortSignal.timeout(1000),
    );

    await expect(answer).rejects.toMatchObject({ novaName: 'MigrationPreCheckError' });
    expect(computes.guests(instance)[1]).toBeUndefined();
  });
});

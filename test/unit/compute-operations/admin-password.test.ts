// set_admin_password.
import { describe, expect, it } from 'vitest';
import { AppError } from '#src/lib/errors.ts';
import { serializeNovaFailure } from '#src/nova/exceptions.ts';
import { ComputeHarness, instanceOf } from '#test/fakes/compute-harness.ts';

type Json = Readonly<Record<string, any>>;

async function updating(harness: ComputeHarness, metadata: Json = {}): Promise<Json> {
  const instance = instanceOf();
  await harness.build(instance);
  const row = harness.row(instance);
  Object.assign(row, { task_state: 'updating_password', system_metadata: { ...row['system_metadata'], ...metadata } });
  return instanceOf(row);
}

const passwordOf = (harness: ComputeHarness, { 'nova_object.data': { uuid } }: Json) =>
  harness.virt.passwords.get(uuid);

describe('set_admin_password', () => {
  it('sets that of root, and ends the task', async () => {
    await using harness = new ComputeHarness();
    const instance = await updating(harness);

    await harness.send('set_admin_password', { instance, new_pass: 'secret' });

    expect(passwordOf(harness, instance)).toBe('secret');
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
  });

  it.each<[string, Json, (harness: ComputeHarness) => void, string]>([
    [
      'the image names another user, whom the guest does not know',
      { image_os_admin_user: 'ubuntu' },
      () => {},
      'InstancePasswordSetFailed',
    ],
    [
      'the guest has no program for it',
      {},
      ({ virt }) => virt.failNext('setPassword', new AppError('unsupported', 'no chpasswd')),
      'SetAdminPasswdNotSupported',
    ],
    [
      'the engine is away',
      {},
      ({ virt }) => virt.failNext('setPassword', new AppError('unavailable', 'the engine is away')),
      'InstancePasswordSetFailed',
    ],
  ])('ends the task and keeps the state when %s', async (_case, metadata, arrange, exception) => {
    await using harness = new ComputeHarness();
    const instance = await updating(harness, metadata);
    arrange(harness);

    const failure = await harness
      .send('set_admin_password', { instance, new_pass: 'secret' })
      .catch(serializeNovaFailure);

    expect(failure).toMatchObject({ class: exception });
    expect(JSON.stringify(failure)).not.toContain('secret');
    expect(passwordOf(harness, instance)).toBeUndefined();
    expect(harness.row(instance)).toMatchObject({ vm_state: 'active', task_state: null });
    expect(harness.plane.faults).toHaveLength(1);
  });

  it('is refused for a guest that does not run', async () => {
    await using harness = new ComputeHarness();
    const instance = await updating(harness);
    await harness.virt.powerOff(instance['nova_object.data'].uuid, { graceSeconds: 0 }, AbortSignal.timeout(1000));

    const sent = harness.send('set_admin_password', { instance, new_pass: 'secret' });

    await expect(sent).rejects.toThrow(/is not running/);
    expect(harness.row(instance)).toMatchObject({ task_state: null });
  });
});

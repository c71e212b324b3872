// A change of an instance's configuration and devices that keeps the rest, also what others change at the same time.
import { isDeepStrictEqual } from 'node:util';
import type { EngineClient } from '#src/client/client.ts';
import type { DeviceMap, Instance } from '#src/client/wire.ts';
import { kindOf } from '#src/lib/errors.ts';

const UPDATE_ATTEMPTS = 3;

type Changeable = Pick<Instance, 'config' | 'devices'>;

/** No request when nothing differs. */
export async function changeInstance(
  client: EngineClient,
  name: string,
  change: (present: Changeable) => Changeable,
  signal: AbortSignal,
): Promise<void> {
  for (let attempt = 1; ; attempt += 1) {
    const { instance, etag } = await client.instances.getWithTag(name, signal);
    const { architecture, config, devices, ephemeral, profiles, stateful, description } = instance;
    const changed = change({ config, devices });
    if (isDeepStrictEqual(changed, { config, devices })) return;
    const body = { architecture, ephemeral, profiles: profiles ?? [], stateful, description, ...changed };
    try {
      await (await client.instances.update(name, body, { etag, signal })).wait(signal);
      return;
    } catch (error) {
      if (kindOf(error) !== 'conflict' || attempt === UPDATE_ATTEMPTS) throw error;
    }
  }
}

/** The same where only devices change. */
export async function changeDevices(
  client: EngineClient,
  name: string,
  change: (devices: DeviceMap) => DeviceMap,
  signal: AbortSignal,
): Promise<void> {
  await changeInstance(client, name, ({ config, devices }) => ({ config, devices: change(devices) }), signal);
}

// The interfaces of an instance as devices of the engine: all of them replaced, one added, one taken away.
import type { EngineClient } from '#src/client/client.ts';
import type { DeviceMap } from '#src/client/wire.ts';
import type { SpawnNic } from '../driver.ts';
import { freeName } from '../nic-names.ts';
import { changeDevices } from './change-instance.ts';
import { nicDevices } from './instance-body.ts';

/** Makes `nics` the only physical interfaces of a stopped instance; no request when they are already. */
export async function replaceNics(
  client: EngineClient,
  name: string,
  nics: readonly SpawnNic[],
  signal: AbortSignal,
): Promise<void> {
  const change = (devices: DeviceMap): DeviceMap => ({
    ...without(devices, ({ type }) => type === 'nic'),
    ...nicDevices(nics),
  });
  await changeDevices(client, name, change, signal);
}

/** Adds one; the engine puts it into a running guest. One with the same MAC address is replaced. */
export async function attachNic(client: EngineClient, name: string, nic: SpawnNic, signal: AbortSignal): Promise<void> {
  const change = (devices: DeviceMap): DeviceMap => {
    const others = without(devices, hasAddress(nic.macAddress));
    return {
      ...others,
      ...nicDevices([{ ...nic, guestInterface: freeName(nic.guestInterface, Object.keys(others)) }]),
    };
  };
  await changeDevices(client, name, change, signal);
}

/** Takes the one with this MAC address away. */
export async function detachNic(
  client: EngineClient,
  name: string,
  macAddress: string,
  signal: AbortSignal,
): Promise<void> {
  await changeDevices(client, name, (devices) => without(devices, hasAddress(macAddress)), signal);
}

type Device = DeviceMap[string];

function without(devices: DeviceMap, isOut: (device: Device) => boolean): DeviceMap {
  return Object.fromEntries(Object.entries(devices).filter(([, device]) => !isOut(device)));
}

function hasAddress(macAddress: string): (device: Device) => boolean {
  return ({ type, hwaddr }) => type === 'nic' && hwaddr?.toLowerCase() === macAddress.toLowerCase();
}

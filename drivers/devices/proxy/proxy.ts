// type=proxy: connections between the host and the container, carried by the forward server or by the kernel's NAT.
import type { ForwardSpec, HostOwner } from '#src/host/forwarding/messages.ts';
import { hostIds, type IdMapRange } from '#src/host/id-map.ts';
import { AppError } from '#src/lib/errors.ts';
import { isTrue, textOf } from '../common/options.ts';
import {
  type Device,
  type DeviceContext,
  type DeviceDriver,
  type DeviceModule,
  NOTHING,
  type StartedDevice,
} from '../driver.ts';
import { natLabel, natRemoval, natRules, natTarget } from './nat.ts';
import { type Config, isOnHost, parseAddress, validate } from './options.ts';

const DEFAULT_MODE = '0644';

class ProxyDevice implements DeviceDriver {
  readonly info = { type: 'proxy', liveOptions: [] };
  readonly #context: DeviceContext;

  constructor(context: DeviceContext) {
    this.#context = context;
  }

  validate(config: Config): void {
    validate(config);
  }

  async start(): Promise<StartedDevice> {
    return NOTHING;
  }

  async started(): Promise<StartedDevice> {
    return NOTHING;
  }

  async attach(device: Device, initPid: number, signal: AbortSignal): Promise<void> {
    if (isTrue(device.config, 'nat')) return this.#addRules(device, signal);
    try {
      await this.#context.forwards.add(forwardOf(device, initPid));
    } catch (cause) {
      const { message } = cause as Error;
      const text = `Failed to listen on ${textOf(device.config, 'listen')}: ${message}`;
      throw new AppError('invalid', text, { cause });
    }
  }

  async #addRules({ owner, device, config }: Device, signal: AbortSignal): Promise<void> {
    const listen = parseAddress(textOf(config, 'listen'));
    const connect = parseAddress(textOf(config, 'connect'));
    if (listen.kind === 'unix' || connect.kind === 'unix') return; // refused by validate()
    const input = natRules(natLabel(owner, device), listen, natTarget(owner, connect));
    await this.#context.host.run(['nft', '-f', '-'], { input, signal });
  }

  async stop({ owner, device, config }: Device): Promise<void> {
    if (isTrue(config, 'nat')) {
      await this.#context.host.run(['nft', '-f', '-'], { input: natRemoval(natLabel(owner, device)) });
      return;
    }
    const listen = parseAddress(textOf(config, 'listen'));
    const hasFile = isOnHost(config) && listen.kind === 'unix' && !listen.abstract;
    await this.#context.forwards.remove(idOf({ owner, device }), hasFile ? listen.path : undefined);
  }
}

function idOf({ owner, device }: Pick<Device, 'owner' | 'device'>): string {
  return `${owner.hostName}/${device}`;
}

/** What the device is to the forward server. */
export function forwardOf({ owner, device, config }: Device, initPid: number): ForwardSpec {
  const listensInside = !isOnHost(config);
  const mapped = (map: IdMapRange | null, prefix: string): HostOwner => {
    const [uid = 0, gid = 0] = ['uid', 'gid'].map((id) => Number(textOf(config, `${prefix}${id}`) || 0));
    return hostIds({ uid, gid }, map);
  };
  return {
    id: idOf({ owner, device }),
    initPid,
    listensInside,
    listen: parseAddress(textOf(config, 'listen')),
    connect: parseAddress(textOf(config, 'connect')),
    root: { uid: owner.idMap?.uidBase ?? 0, gid: owner.idMap?.gidBase ?? 0 },
    socket: {
      ...mapped(listensInside ? owner.idMap : null, ''),
      mode: Number.parseInt(textOf(config, 'mode') || DEFAULT_MODE, 8),
    },
    connector: mapped(listensInside ? null : owner.idMap, 'security.'),
    proxyHeader: isTrue(config, 'proxy_protocol'),
  };
}

export const proxy: DeviceModule = { type: 'proxy', create: (context) => new ProxyDevice(context) };

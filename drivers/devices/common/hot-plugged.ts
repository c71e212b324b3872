// Devices that are named by vendor and product, and come and go with the hardware: usb and unix-hotplug.
import { AppError } from '#src/lib/errors.ts';
import {
  type Device,
  type DeviceContext,
  type DeviceDriver,
  NOTHING,
  type StartedDevice,
  type Watched,
} from '../driver.ts';
import { type Hardware, hardwareId } from './hardware.ts';
import { areStale, madeNodes, makeNodes, type Node, OWNER_CHECKS, removeNodes } from './nodes.ts';
import { boolean, checkOptions, isTrue, textOf } from './options.ts';
import { DevicePlaces } from './places.ts';

type Config = Readonly<Record<string, string>>;

export interface HotPluggedKind {
  readonly type: string;
  /** Of which one must be said. */
  readonly needsId?: string;
  /** What is said when a required one is absent. */
  readonly absent: string;
  /** Everything of the kind that this host has now. */
  readonly find: (sysfs: string) => Promise<readonly Hardware[]>;
}

const CHECKS = { vendorid: hardwareId, productid: hardwareId, required: boolean, ...OWNER_CHECKS };

export class HotPluggedDevice implements DeviceDriver {
  readonly info;
  readonly #kind: HotPluggedKind;
  readonly #context: DeviceContext;
  readonly #places: DevicePlaces;

  constructor(kind: HotPluggedKind, context: DeviceContext) {
    this.info = { type: kind.type, liveOptions: [] };
    this.#kind = kind;
    this.#context = context;
    this.#places = new DevicePlaces(context);
  }

  validate(config: Config): void {
    checkOptions(config, CHECKS);
    const { needsId } = this.#kind;
    if (needsId === undefined || textOf(config, 'vendorid') !== '' || textOf(config, 'productid') !== '') return;
    throw new AppError('invalid', needsId);
  }

  async start(device: Device): Promise<StartedDevice> {
    const nodes = await this.#nodes(device.config);
    if (nodes.length > 0) return makeNodes({ host: this.#context.host, places: this.#places }, device, nodes);
    if (isTrue(device.config, 'required')) throw new AppError('not_found', this.#kind.absent);
    return NOTHING;
  }

  started(device: Device): Promise<StartedDevice> {
    return madeNodes(this.#places, device);
  }

  watched(): Watched {
    return { directories: [], hardware: true };
  }

  async isStale(device: Device): Promise<boolean> {
    return areStale(this.#places, device, await this.#nodes(device.config));
  }

  async #nodes(config: Config): Promise<readonly Node[]> {
    const [vendor, product] = [textOf(config, 'vendorid'), textOf(config, 'productid')];
    const all = await this.#kind.find(this.#context.sysfs ?? '/sys');
    return all
      .filter((one) => (vendor === '' || one.vendor === vendor) && (product === '' || one.product === product))
      .map(({ node }) => node);
  }

  async stop(device: Device): Promise<void> {
    await removeNodes(this.#places, device);
  }
}

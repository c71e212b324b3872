// type=unix-char and type=unix-block: a device node, by a path of the host or by its numbers.
import { dirname } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import { areStale, madeNodes, makeNodes, nodeAt, type Node, OWNER_CHECKS, removeNodes } from '../common/nodes.ts';
import { boolean, checkOptions, insidePath, isTrue, type OptionCheck, textOf } from '../common/options.ts';
import { DevicePlaces } from '../common/places.ts';
import {
  type Device,
  type DeviceContext,
  type DeviceDriver,
  type DeviceModule,
  NOTHING,
  type StartedDevice,
  type Watched,
} from '../driver.ts';

type Config = Readonly<Record<string, string>>;
type UnixType = 'unix-char' | 'unix-block';

const number: OptionCheck = (value) => {
  if (!/^\d+$/.test(value)) throw new AppError('invalid', 'Invalid value for a UNIX device number');
};
const CHECKS = {
  source: insidePath,
  path: insidePath,
  major: number,
  minor: number,
  required: boolean,
  ...OWNER_CHECKS,
};

class UnixDevice implements DeviceDriver {
  readonly info;
  readonly #type: UnixType;
  readonly #context: DeviceContext;
  readonly #places: DevicePlaces;

  constructor(type: UnixType, context: DeviceContext) {
    this.info = { type, liveOptions: [] };
    this.#type = type;
    this.#context = context;
    this.#places = new DevicePlaces(context);
  }

  validate(config: Config): void {
    checkOptions(config, CHECKS);
    if (textOf(config, 'source') === '' && textOf(config, 'path') === '') {
      throw new AppError('invalid', 'Unix device entry is missing the required "source" or "path" property');
    }
    if (!sourceOf(config).startsWith('/')) {
      throw new AppError('invalid', 'The path of a Unix device must be absolute');
    }
  }

  async start(device: Device): Promise<StartedDevice> {
    const node = await this.#node(device.config);
    if (!node) return NOTHING;
    return makeNodes({ host: this.#context.host, places: this.#places }, device, [node]);
  }

  started(device: Device): Promise<StartedDevice> {
    return madeNodes(this.#places, device);
  }

  async #node(config: Config): Promise<Node | undefined> {
    const path = textOf(config, 'path') || textOf(config, 'source');
    const major = textOf(config, 'major');
    const minor = textOf(config, 'minor');
    const kind = this.#type === 'unix-char' ? 'char' : 'block';
    const found = await nodeAt(sourceOf(config));
    if (found && found.kind !== kind) {
      throw new AppError('invalid', `Path specified is not a ${this.#type} device`);
    }
    if (major !== '' && minor !== '') return { kind, path, major: Number(major), minor: Number(minor) };
    if (found) return { ...found, path };
    if (!isTrue(config, 'required', true)) return undefined;
    throw new AppError(
      'invalid',
      "The required device path doesn't exist and the major and minor settings are not specified",
    );
  }

  watched({ config }: Device): Watched | undefined {
    if (isTrue(config, 'required', true)) return undefined;
    return { directories: [dirname(sourceOf(config))], hardware: false };
  }

  async isStale(device: Device): Promise<boolean> {
    const node = await this.#node(device.config);
    return areStale(this.#places, device, node ? [node] : []);
  }

  async stop(device: Device): Promise<void> {
    await removeNodes(this.#places, device);
  }
}

/** On the host. */
function sourceOf(config: Config): string {
  return textOf(config, 'source') || textOf(config, 'path');
}

export const unixChar: DeviceModule = {
  type: 'unix-char',
  create: (context) => new UnixDevice('unix-char', context),
};
export const unixBlock: DeviceModule = {
  type: 'unix-block',
  create: (context) => new UnixDevice('unix-block', context),
};
